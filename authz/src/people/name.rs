//! Names of people.

use crate::visible;

pub(crate) const NAME_RULE: &str = "Choose a name of 1 to 64 characters, without line breaks.";

/// A person's name as it is kept; `None` if it cannot be one.
pub(crate) fn valid_name(text: &str) -> Option<String> {
    let name = text.trim();
    let fits = !name.is_empty() && name.chars().count() <= 64;
    // Two people must not look alike, and ids and names share one argument on the command line.
    (fits && !name.starts_with("u_") && visible::clean(name) == name).then(|| name.to_owned())
}
