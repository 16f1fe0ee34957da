//! Finds the end of a chunked body by its strict grammar (RFC 9112 §7.1).

/// The longest line other than data: a size with extensions, or a trailer field.
const LONGEST_LINE: usize = 1024;
/// The most bytes of all trailer fields.
const MOST_TRAILERS: usize = 4096;

/// The state of a chunked body's parser.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    at: At,
    /// What has been seen of the line that is not data.
    line: usize,
    trailers: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum At {
    /// The digits of a size; how many there were.
    #[default]
    FirstDigit,
    Size(u64),
    /// After the size, until the end of the line.
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataReturn,
    DataEnd,
    /// The beginning of a trailer field, or of the last line.
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastEnd,
    Over,
}

impl Chunks {
    /// Parses these bytes; returns how many belong to the body. `None` if it is malformed.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut taken = 0;
        while taken < bytes.len() && self.at != At::Over {
            if let At::Data(left) = &mut self.at {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - taken);
                *left -= here as u64;
                taken += here;
                if *left == 0 {
                    self.at = At::DataReturn;
                }
                continue;
            }
            self.at = self.step(bytes[taken])?;
            taken += 1;
        }
        Some(taken)
    }

    /// Whether its end was seen.
    pub(super) fn is_over(&self) -> bool {
        self.at == At::Over
    }

    fn step(&mut self, byte: u8) -> Option<At> {
        self.line += 1;
        if self.line > LONGEST_LINE {
            return None;
        }
        Some(match self.at {
            At::FirstDigit => At::Size(digit(byte)?),
            At::Size(size) => match byte {
                b'\r' => At::SizeEnd(size),
                b';' | b' ' | b'\t' => At::Extension(size),
                _ => At::Size(size.checked_mul(16)?.checked_add(digit(byte)?)?),
            },
            At::Extension(size) => match byte {
                b'\r' => At::SizeEnd(size),
                b'\n' => return None,
                _ => At::Extension(size),
            },
            At::SizeEnd(size) => {
                self.expect(byte, b'\n')?;
                if size == 0 { At::TrailerStart } else { At::Data(size) }
            }
            At::DataReturn => {
                self.expect(byte, b'\r')?;
                At::DataEnd
            }
            At::DataEnd => {
                self.expect(byte, b'\n')?;
                At::FirstDigit
            }
            At::TrailerStart if byte == b'\r' => At::LastEnd,
            At::TrailerStart | At::Trailer => {
                self.trailers += 1;
                match byte {
                    b'\r' => At::TrailerEnd,
                    b'\n' => return None,
                    _ if self.trailers > MOST_TRAILERS => return None,
                    _ => At::Trailer,
                }
            }
            At::TrailerEnd => {
                self.expect(byte, b'\n')?;
                At::TrailerStart
            }
            At::LastEnd => {
                self.expect(byte, b'\n')?;
                At::Over
            }
            At::Data(_) | At::Over => return None,
        })
    }

    /// Requires this byte; a line begins after it.
    fn expect(&mut self, byte: u8, wanted: u8) -> Option<()> {
        self.line = 0;
        (byte == wanted).then_some(())
    }
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}
