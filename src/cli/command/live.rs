//! Runs a screen that fills the terminal: keys and news in, frames out.

use std::{pin::pin, time::Duration};

use lattice::clock::Clock;
use ratatui::Frame;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::Receiver,
    time::{MissedTickBehavior, interval},
};

use crate::cli::{
    exit::Failure,
    input::keys::{Key, Keyboard, Then},
    output::{full_screen::FullScreen, screen::Screen},
    session::Context,
};

/// A screen that news and keys change.
pub(crate) trait Live {
    /// News from tasks in the background.
    type News;

    /// Takes news; an error ends the screen.
    fn take(&mut self, news: Self::News) -> Result<(), Failure>;
    /// Acts on a key.
    fn press(&mut self, key: Key) -> Then;
    /// Called every second.
    fn tick(&mut self, now_ms: u64);
    /// Draws a frame.
    fn draw(&mut self, frame: &mut Frame<'_>, screen: &Screen);
}

/// Shows a screen until a key leaves it, the node is asked to stop, or something fails.
pub(crate) async fn show<L: Live>(
    context: &Context,
    live: &mut L,
    news: &mut Receiver<L::News>,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed("signal", error.to_string());
    let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
    let mut down = pin!(context.down_requested());
    // Dropped after the keyboard, which reads in raw mode.
    let mut terminal = FullScreen::take(&context.out)?;
    let mut keyboard = Keyboard::open()?;
    let mut second = interval(Duration::from_secs(1));
    let mut next_frame = interval(FRAME);
    next_frame.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_stale = true;
    loop {
        tokio::select! {
            key = keyboard.next() => {
                is_stale = true;
                match live.press(key?) {
                    Then::Stay => {}
                    Then::Leave => return Ok(()),
                    Then::Suspend => terminal.suspend()?,
                    Then::Redraw => terminal.clear()?,
                }
            }
            next = news.recv() => {
                is_stale = true;
                // The tasks that send end with this function.
                let Some(next) = next else { return Ok(()) };
                live.take(next)?;
            }
            _tick = second.tick() => {
                is_stale = true;
                live.tick(Clock::system().now_ms());
            }
            _signal = resized.recv() => is_stale = true,
            // This process is the node, and `lattice down` asks it to stop.
            () = &mut down => return Ok(()),
            _tick = next_frame.tick(), if is_stale => {
                is_stale = false;
                let screen = context.out.screen();
                terminal.draw(|frame| live.draw(frame, &screen))?;
            }
        }
    }
}

/// Shortest time between two frames: many changes are drawn together.
const FRAME: Duration = Duration::from_millis(50);
