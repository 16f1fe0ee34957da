//! The handbook that ships in the binary: this project's own documentation.

/// Path and text of each page, as the documentation source serves them when no folder is given.
pub(crate) const HANDBOOK: &[(&str, &str)] = &[
    ("README.md", include_str!("../README.md")),
    ("ARCHITECTURE.md", include_str!("../ARCHITECTURE.md")),
    ("SECURITY.md", include_str!("../SECURITY.md")),
    ("CHANGELOG.md", include_str!("../CHANGELOG.md")),
];
