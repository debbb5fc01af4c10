//! Analyses in a list, each of which becomes a part of a report.

use std::error::Error;

use crate::picture::{Analysis, Part, Picture};
use crate::subject::Subject;

/// Why an analysis is not available, of any kind.
pub type Failure = Box<dyn Error + Send + Sync>;

/// What was done, in words, and what was found.
pub type Found = (String, Vec<Picture>);

/// One kind of analysis of a subject.
#[derive(Debug)]
pub struct Analyser<S = Subject> {
    /// Its heading in a report.
    pub title: &'static str,
    /// Does it. An error becomes the section's text: not every analysis fits every model.
    pub run: fn(&S) -> Result<Found, Failure>,
}

impl<S> Clone for Analyser<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Analyser<S> {}

impl<S> Analyser<S> {
    /// Its part of an analysis; where nothing could be found, the reason. `scope` says for what, such as `here`.
    pub(crate) fn part(&self, subject: &S, scope: &str) -> Part {
        let (prose, pictures) = match (self.run)(subject) {
            Ok(found) => found,
            Err(error) => (format!("Not available {scope}: {}.", in_full(&*error)), vec![]),
        };
        Part { title: self.title.into(), prose, pictures }
    }
}

/// Every analysis of the list, in its order.
pub fn analyse(subject: &Subject, analysers: &[Analyser]) -> Analysis {
    analyse_with(subject, analysers, |_| {})
}

/// The same; `before` is told which one comes next.
pub fn analyse_with(subject: &Subject, analysers: &[Analyser], mut before: impl FnMut(&Analyser)) -> Analysis {
    let part = |analyser: &Analyser| {
        before(analyser);
        analyser.part(subject, "for this model")
    };
    Analysis { step: subject.step, sections: analysers.iter().map(part).collect() }
}

/// An error with its causes.
fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
