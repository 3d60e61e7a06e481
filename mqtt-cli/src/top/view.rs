//! Drawing.

use super::ask::Status;
use super::state::{Curve, List, Question, State, Tab};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Sparkline, Table, TableState, Wrap};

pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(headline(state), head);
    match state.tab {
        Tab::Overview => overview(frame, body, state),
        Tab::Clients => clients(frame, body, state),
        Tab::Subscriptions => subscriptions(frame, body, state),
        Tab::Retained => retained(frame, body, state),
    }
    frame.render_widget(footline(state), foot);
}

fn headline(state: &State) -> Line<'static> {
    let tab = |(number, tab): (usize, &Tab)| {
        let style =
            if state.tab == *tab { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        Span::styled(format!(" {} {} ", number + 1, tab.name()), style)
    };
    let mut spans: Vec<Span<'static>> = Tab::ALL.iter().enumerate().map(tab).collect();
    spans.push(Span::raw("  "));
    spans.push(Span::raw(state.url.clone()).bold());
    if let Some(status) = &state.status {
        spans.push(Span::raw(format!("  version {}, up for {}", status.version, time(status.uptime))));
    }
    Line::from(spans)
}

fn footline(state: &State) -> Line<'static> {
    let asked = match &state.question {
        Some(Question::Disconnect(client)) => {
            format!(" Close the connection of {}? Its session stays. y/n ", printable(client))
        }
        Some(Question::Delete(client)) => {
            format!(" End the session of {} for good? y/n ", printable(client))
        }
        Some(Question::Remove(topic)) => {
            format!(" Remove the retained message of {}? y/n ", printable(topic))
        }
        None => {
            if let Some(problem) = &state.problem {
                return Line::from(problem.clone()).red();
            }
            let keys = match state.tab {
                Tab::Overview => "q quit   tab next",
                Tab::Clients => "q quit   tab next   ↑↓ choose   s sort   d disconnect   x delete session",
                Tab::Subscriptions => "q quit   tab next   ↑↓ choose",
                Tab::Retained => "q quit   tab next   ↑↓ choose   x remove",
            };
            return Line::from(keys).dim();
        }
    };
    Line::from(asked).reversed()
}

fn overview(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let rows =
        Layout::vertical([Constraint::Fill(1), Constraint::Fill(1), Constraint::Fill(1), Constraint::Min(7)]);
    let [first, second, third, figures] = rows.areas(area);
    let pairs = [
        (
            first,
            "Messages in",
            &state.messages_in,
            rate as fn(u64) -> String,
            "Messages out",
            &state.messages_out,
        ),
        (second, "Bytes in", &state.bytes_in, byte_rate, "Bytes out", &state.bytes_out),
        (third, "Broker answers in", &state.answers, micros, "Store commits in", &state.commits),
    ];
    for (area, left, left_curve, show, right, right_curve) in pairs {
        let [left_area, right_area] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
        curve(frame, left_area, left, left_curve, show);
        curve(frame, right_area, right, right_curve, show);
    }
    let text = state.status.as_ref().map(lines).unwrap_or_default();
    frame.render_widget(
        Paragraph::new(text).wrap(Wrap { trim: true }).block(Block::bordered().title("Now")),
        figures,
    );
}

fn curve(frame: &mut Frame<'_>, area: Rect, title: &str, curve: &Curve, show: fn(u64) -> String) {
    let values = curve.newest(usize::from(area.width.saturating_sub(2)));
    let most = values.iter().max().copied().unwrap_or_default();
    let title = format!("{title} {} (top {})", show(curve.last()), show(most));
    frame.render_widget(Sparkline::default().data(values).block(Block::bordered().title(title)), area);
}

fn lines(status: &Status) -> Vec<Line<'static>> {
    let c = &status.counters;
    let memory = status.memory_bytes.map_or_else(String::new, |used| format!(", memory {}", bytes(used)));
    let store = status.store.as_ref().map_or_else(
        || "in memory only".to_owned(),
        |store| {
            let state = if store.failed { "FAILED" } else { "works" };
            format!(
                "{state}, {} waiting, {} commits, {} on the disk",
                store.waiting,
                store.commits,
                bytes(store.disk_bytes)
            )
        },
    );
    vec![
        Line::from(format!(
            "Clients: {} connected, {} sessions, {} subscriptions; {} connections so far, {} refused",
            status.connected, status.sessions, status.subscriptions, c.connections, c.refused
        )),
        Line::from(format!(
            "Messages: {} retained, {} held ({}), {} wait for sockets",
            status.retained,
            status.messages,
            bytes(status.message_bytes),
            bytes(status.unsent_bytes)
        )),
        Line::from(format!(
            "Trouble: {} dropped, {} denied, {} malformed packets",
            c.dropped, c.denied, c.malformed
        )),
        Line::from(format!("Store: {store}")),
        Line::from(format!("Threads: {}{memory}", status.shards)),
    ]
}

fn clients(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let clients = &state.clients;
    let rows = clients.list.lines.iter().map(|client| {
        let link = client.connection.as_ref();
        let row = Row::new([
            printable(&client.id),
            printable(client.user.as_deref().unwrap_or_default()),
            link.map_or_else(|| "away".to_owned(), |link| link.address.clone().unwrap_or_default()),
            link.map_or_else(String::new, |link| link.version.clone()),
            client.subscriptions.to_string(),
            client.queued.to_string(),
            client.in_flight.to_string(),
            client.dropped.to_string(),
            link.map_or_else(String::new, |link| link.messages_received.to_string()),
            link.map_or_else(String::new, |link| link.messages_sent.to_string()),
        ]);
        if client.connected() { row } else { row.dim() }
    });
    let widths = [
        Constraint::Fill(3),
        Constraint::Fill(1),
        Constraint::Length(21),
        Constraint::Length(5),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Length(10),
    ];
    let names =
        ["Client", "User", "Address", "MQTT", "Filters", "Queued", "Under way", "Dropped", "In", "Out"];
    let title = format!("{}, by {}", counted(&clients.list, "clients"), clients.order.name());
    table(frame, area, title, Row::new(names), Table::new(rows, widths), clients.list.place());
}

fn subscriptions(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let list = &state.subscriptions;
    let rows = list.lines.iter().map(|line| {
        Row::new([
            printable(&line.filter),
            printable(&line.client),
            line.qos.to_string(),
            line.id.map_or_else(String::new, |id| id.to_string()),
            if line.waiting > 0 { line.waiting.to_string() } else { String::new() },
        ])
    });
    let widths = [
        Constraint::Fill(3),
        Constraint::Fill(2),
        Constraint::Length(4),
        Constraint::Length(10),
        Constraint::Length(8),
    ];
    let names = ["Filter", "Client", "QoS", "Identifier", "Waiting"];
    let title = counted(list, "subscriptions");
    table(frame, area, title, Row::new(names), Table::new(rows, widths), list.place());
}

fn retained(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let list = &state.retained;
    let rows = list.lines.iter().map(|line| {
        let left = line.expires_in.map_or_else(String::new, |left| format!("{left} s"));
        Row::new([printable(&line.topic), line.qos.to_string(), bytes(line.bytes), left])
    });
    let widths = [Constraint::Fill(1), Constraint::Length(4), Constraint::Length(10), Constraint::Length(12)];
    let names = ["Topic", "QoS", "Payload", "Expires in"];
    let title = counted(list, "retained messages");
    table(frame, area, title, Row::new(names), Table::new(rows, widths), list.place());
}

fn counted<T>(list: &List<T>, of: &str) -> String {
    let more = if list.more { ", and more" } else { "" };
    format!("{} {of}{more}", list.lines.len())
}

fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    title: String,
    names: Row<'_>,
    table: Table<'_>,
    place: Option<usize>,
) {
    let table = table
        .header(names.bold())
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::bordered().title(title));
    frame.render_stateful_widget(table, area, &mut TableState::default().with_selected(place));
}

/// Text from a client: it must not move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

fn rate(n: u64) -> String {
    format!("{n}/s")
}

fn byte_rate(n: u64) -> String {
    format!("{}/s", bytes(n))
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn micros(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} µs"),
        1_000..1_000_000 => format!("{:.1} ms", n as f64 / 1e3),
        _ => format!("{:.1} s", n as f64 / 1e6),
    }
}

#[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "figures for people")]
fn time(seconds: f64) -> String {
    let seconds = seconds as u64;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ask::{Answer, Client, Connection, Counters, Listed, Retained, Subscription};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn client(id: &str, queued: u64, connected: bool) -> Client {
        let link = Connection {
            address: Some("192.0.2.1:1234".to_owned()),
            version: "5.0".to_owned(),
            ..Connection::default()
        };
        Client { id: id.to_owned(), queued, connection: connected.then_some(link), ..Client::default() }
    }

    fn state() -> State {
        let mut state = State::new("http://h:1/#token=secret".to_owned());
        for second in 1..=3_u64 {
            let counters = Counters {
                publish_received: [second * 100, 0, 0],
                bytes_sent: second * 4_096,
                ..Counters::default()
            };
            let status = Status { uptime: second as f64, connected: 2, counters, ..Status::default() };
            let clients = vec![client("b\u{1b}[2J", 7, true), client("a", 0, false)];
            state.take(Answer::Seen(Box::new(status), Listed::Clients(clients, false)));
        }
        state
    }

    fn screen(state: &mut State) -> String {
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn rates_are_what_changed_in_a_second() {
        let text = screen(&mut state());
        assert!(text.contains("Messages in 100/s (top 100/s)"), "{text}");
        assert!(text.contains("Bytes out 4.0 KiB/s"), "{text}");
        assert!(text.contains("2 connected"), "{text}");
        assert!(!text.contains("secret"));
    }

    #[test]
    fn clients_are_sorted_and_chosen_by_name() {
        let mut state = state();
        state.tab = Tab::Clients;
        state.move_by(1);
        assert_eq!(state.clients.list.chosen().map(|client| &*client.id), Some("a"));
        state.clients.sort_by_next();
        // What was chosen stays, wherever it is now.
        assert_eq!(state.clients.list.place(), Some(1));
        let text = screen(&mut state);
        assert!(text.contains("2 clients, by queued") && text.contains("away"), "{text}");
        assert!(text.contains('\u{FFFD}') && !text.contains('\u{1b}'), "{text}");
        state.question = Some(Question::Delete("a".to_owned()));
        assert!(screen(&mut state).contains("End the session of a for good? y/n"));
    }

    #[test]
    fn a_broker_that_began_anew_and_one_that_is_gone_are_no_nonsense() {
        let mut state = state();
        let status = Status { uptime: 0.5, ..Status::default() };
        state.take(Answer::Seen(Box::new(status), Listed::Clients(Vec::new(), false)));
        assert_eq!(state.messages_in.last(), 100, "no rate over a restart");
        state.take(Answer::Failed("it is gone".to_owned()));
        assert!(screen(&mut state).contains("it is gone"));
        state.tab = Tab::Clients;
        state.move_by(1);
        assert!(state.clients.list.chosen().is_none());
    }

    #[test]
    fn subscriptions_and_retained_messages_are_listed_in_order() {
        let mut state = state();
        let subscription = |filter: &str, client: &str| Subscription {
            filter: filter.to_owned(),
            client: client.to_owned(),
            ..Subscription::default()
        };
        let subscriptions = vec![subscription("b", "x"), subscription("a/#", "y"), subscription("a/#", "x")];
        state.tab = Tab::Subscriptions;
        state.take(Answer::Seen(Box::default(), Listed::Subscriptions(subscriptions, true)));
        state.move_by(1);
        state.move_by(1);
        let chosen = state.subscriptions.chosen().map(|line| (&*line.filter, &*line.client));
        assert_eq!(chosen, Some(("a/#", "y")));
        assert!(screen(&mut state).contains("3 subscriptions, and more"));
        let message = |topic: &str| Retained { topic: topic.to_owned(), bytes: 2048, ..Retained::default() };
        state.tab = state.tab.neighbour(1);
        state.take(Answer::Seen(Box::default(), Listed::Retained(vec![message("b"), message("a")], false)));
        state.move_by(1);
        assert_eq!(state.retained.chosen().map(|line| &*line.topic), Some("a"));
        state.question = Some(Question::Remove("a".to_owned()));
        let text = screen(&mut state);
        assert!(text.contains("2 retained messages") && text.contains("2.0 KiB"), "{text}");
        assert!(text.contains("Remove the retained message of a? y/n"), "{text}");
        assert_eq!(state.tab.neighbour(1), Tab::Overview);
    }

    #[test]
    fn a_small_terminal_is_drawn_into() {
        for (width, height) in [(1, 1), (10, 3), (40, 10)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            let mut state = state();
            terminal.draw(|frame| draw(frame, &mut state)).unwrap();
            for tab in Tab::ALL {
                state.tab = tab;
                terminal.draw(|frame| draw(frame, &mut state)).unwrap();
            }
        }
    }
}
