//! `mqtt top`: a broker's figures, clients, subscriptions and retained messages in a terminal.

mod ask;
mod state;
mod view;

use crate::stop::Stop;
use ask::{Asker, Wish};
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use state::{Question, State, Tab};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// How long a key is waited for before the screen is drawn again.
const TICK: Duration = Duration::from_millis(100);

/// Options of `mqtt top`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Where the broker answers by HTTP: its http.address
    #[arg(default_value = "http://127.0.0.1:18083", value_name = "URL", env = "MQTT_HTTP_URL")]
    url: String,
    /// A token of the broker's http.token_file, or the one that it named at its start
    #[arg(
        long,
        env = "MQTT_HTTP_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        conflicts_with = "token_file"
    )]
    token: Option<String>,
    /// A file whose first token is used; the broker's own will do
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// For https: authorities in the place of the system's (PEM)
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// Seconds between two looks
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = seconds)]
    interval: f64,
}

fn seconds(text: &str) -> Result<f64, &'static str> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("it is a number from 0.1 to 3600"),
    }
}

pub(crate) fn run(options: &Options) -> ExitCode {
    match prepare(options).and_then(|asker| watch(asker, options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.exit(false),
    }
}

/// Asks once, so that what is wrong is said while the terminal is as it was.
fn prepare(options: &Options) -> Result<Asker, Stop> {
    let token =
        match (&options.token, &options.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|e| Stop::new(format!("{}: {e}", file.display())))?;
                let mut tokens =
                    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                Some(tokens.next().map(str::to_owned).ok_or_else(|| {
                    Stop::new(format!("{}: there is no token in this file", file.display()))
                })?)
            }
            (None, None) => None,
        };
    let asker = Asker::new(&options.url, token, options.cafile.as_deref()).map_err(Stop::new)?;
    asker.status().map_err(Stop::new)?;
    Ok(asker)
}

/// Shows the broker until somebody has seen enough.
fn watch(asker: Asker, options: &Options) -> Result<(), Stop> {
    if !io::stdout().is_terminal() {
        return Err(Stop::new(
            "this is for a terminal; programs ask the broker themselves: GET /metrics, GET /api/v1/status",
        ));
    }
    let (wishes, asked) = channel();
    let (answers, got) = channel();
    let interval = Duration::from_secs_f64(options.interval);
    std::thread::spawn(move || ask::serve(&asker, &asked, &answers, interval));
    let mut terminal = ratatui::try_init().map_err(|e| Stop::new(e.to_string()))?;
    let shown = show(&mut terminal, State::new(options.url.clone()), &wishes, &got);
    ratatui::restore();
    shown.map_err(|e| Stop::new(e.to_string()))
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    mut state: State,
    wishes: &Sender<Wish>,
    got: &Receiver<ask::Answer>,
) -> io::Result<()> {
    loop {
        got.try_iter().for_each(|answer| state.take(answer));
        terminal.draw(|frame| view::draw(frame, &mut state))?;
        if !event::poll(TICK)? {
            continue;
        }
        if let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
            && press(&mut state, key, wishes)
        {
            return Ok(());
        }
    }
}

/// What a key does; true if it ends the program.
fn press(state: &mut State, key: KeyEvent, wishes: &Sender<Wish>) -> bool {
    if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
        return true;
    }
    if let Some(question) = state.question.take() {
        if matches!(key.code, KeyCode::Char('y' | 'Y')) {
            // The thread that asks ends only with this one.
            let _ = wishes.send(match question {
                Question::Disconnect(client) => Wish::Disconnect(client),
                Question::Delete(client) => Wish::Delete(client),
                Question::Remove(topic) => Wish::Remove(topic),
            });
        }
        return false;
    }
    let tab = state.tab;
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char(digit @ '1'..='4') => {
            state.tab = Tab::ALL[digit as usize - '1' as usize];
        }
        KeyCode::Tab | KeyCode::Right => state.tab = tab.neighbour(1),
        KeyCode::BackTab | KeyCode::Left => state.tab = tab.neighbour(Tab::ALL.len() - 1),
        KeyCode::Down | KeyCode::Char('j') => state.move_by(1),
        KeyCode::Up | KeyCode::Char('k') => state.move_by(-1),
        KeyCode::PageDown => state.move_by(20),
        KeyCode::PageUp => state.move_by(-20),
        KeyCode::Char('s') if tab == Tab::Clients => state.clients.sort_by_next(),
        KeyCode::Char('d') if tab == Tab::Clients => {
            let client = state.clients.list.chosen().filter(|client| client.connected());
            state.question = client.map(|client| Question::Disconnect(client.id.clone()));
        }
        KeyCode::Char('x') if tab == Tab::Clients => {
            let client = state.clients.list.chosen();
            state.question = client.map(|client| Question::Delete(client.id.clone()));
        }
        KeyCode::Char('x') if tab == Tab::Retained => {
            let message = state.retained.chosen();
            state.question = message.map(|message| Question::Remove(message.topic.clone()));
        }
        _ => {}
    }
    if state.tab != tab {
        let _ = wishes.send(Wish::Show(state.tab));
    }
    false
}
