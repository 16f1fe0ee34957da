//! Users' names.

use crate::visible;

pub(crate) const NAME_RULE: &str = "Choose a name of 1 to 64 characters, without line breaks.";

/// A name as stored; `None` if it is not valid.
pub(crate) fn valid_name(text: &str) -> Option<String> {
    let name = text.trim();
    let fits = !name.is_empty() && name.chars().count() <= 64;
    // Names must not look alike, and must not look like an id, because commands accept either in one argument.
    (fits && !name.starts_with("u_") && visible::clean(name) == name).then(|| name.to_owned())
}
