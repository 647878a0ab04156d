//! The step that a consumer takes where history that it needs is missing.

/// The step that a consumer takes where history that it needs is missing. No step skips in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnGap {
    /// It stops, and delivers nothing until it is reset or gets the other option.
    #[default]
    Stop,
    /// It delivers the gap, then each live key of the state, then the changes after that state.
    State,
}

impl OnGap {
    /// Returns the name used in options, in JSON and in text: `stop`, `state`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::State => "state",
        }
    }

    /// Returns the step with a name; `None` for any other text.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Stop, Self::State]
            .into_iter()
            .find(|step| step.name() == name)
    }
}
