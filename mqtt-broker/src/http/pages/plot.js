// A plot of the last minutes, drawn as SVG.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 100;

/** A plot of `names.length` lines (one or two), each with `length` values. */
export class Plot {
  constructor(title, names, show, length = 180) {
    this.names = names;
    this.show = show;
    this.length = length;
    this.values = names.map(() => []);
    this.figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const heading = document.createElement("span");
    heading.textContent = title;
    this.readings = document.createElement("span");
    caption.append(heading, this.readings);
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("role", "img");
    this.svg.setAttribute("aria-label", title);
    for (const y of [0.5, HEIGHT / 2, HEIGHT - 0.5]) {
      const line = this.element("line", "grid");
      line.setAttribute("x1", 0);
      line.setAttribute("x2", WIDTH);
      line.setAttribute("y1", y);
      line.setAttribute("y2", y);
    }
    this.lines = names.map((_, i) => this.element("polyline", `line ${i ? "second" : "first"}`));
    this.figure.append(caption, this.svg);
  }

  element(name, className) {
    const element = document.createElementNS(SVG, name);
    element.setAttribute("class", className);
    this.svg.append(element);
    return element;
  }

  /** The next value of each line; null where there is none. */
  add(values) {
    values.forEach((value, i) => {
      this.values[i].push(value);
      if (this.values[i].length > this.length) this.values[i].shift();
    });
    const most = Math.max(1e-9, ...this.values.flat().filter((value) => value !== null));
    this.lines.forEach((line, i) => {
      const all = this.values[i];
      const first = this.length - all.length;
      const points = all.flatMap((value, n) => {
        if (value === null) return [];
        const x = ((first + n) / (this.length - 1)) * WIDTH;
        const y = HEIGHT - 1 - (value / most) * (HEIGHT - 4);
        return [`${x.toFixed(1)},${y.toFixed(1)}`];
      });
      line.setAttribute("points", points.join(" "));
    });
    this.readings.replaceChildren();
    this.names.forEach((name, i) => {
      const value = values[i];
      const reading = document.createElement("b");
      reading.className = i ? "second" : "first";
      reading.textContent = `${name} ${value === null ? "–" : this.show(value)}`;
      this.readings.append(i ? "  " : "", reading);
    });
    const top = document.createElement("span");
    top.textContent = `  (top ${this.show(most < 1e-6 ? 0 : most)})`;
    this.readings.append(top);
  }
}
