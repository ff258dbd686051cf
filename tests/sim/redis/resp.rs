//! What travels over a connection: commands as clients send them, and answers. RESP2 only.

use std::borrow::Cow;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Status(Cow<'static, str>),
    /// Code and sentence, without the dash.
    Error(Cow<'static, str>),
    Int(i64),
    Bulk(Bytes),
    Nil,
    /// A list that is missing, which differs on the wire only.
    NilArray,
    Array(Vec<Reply>),
}

impl Reply {
    pub const OK: Self = Self::Status(Cow::Borrowed("OK"));

    pub fn error(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Error(text.into())
    }

    pub fn text(text: impl Into<String>) -> Self {
        Self::Bulk(text.into().into())
    }

    pub fn texts<'t>(texts: impl IntoIterator<Item = &'t str>) -> Self {
        Self::Array(texts.into_iter().map(Self::text).collect())
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// As the server writes it.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Status(text) => line(out, b'+', text.as_bytes()),
            Self::Error(text) => line(out, b'-', text.as_bytes()),
            Self::Int(number) => number_line(out, b':', *number),
            Self::Bulk(bytes) => {
                number_line(out, b'$', bytes.len() as i64);
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Self::Nil => out.extend_from_slice(b"$-1\r\n"),
            Self::NilArray => out.extend_from_slice(b"*-1\r\n"),
            Self::Array(replies) => {
                number_line(out, b'*', replies.len() as i64);
                replies.iter().for_each(|reply| reply.write_to(out));
            }
        }
    }
}

fn line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.push(kind);
    // What would end the line early is written as a space.
    out.extend(text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
    out.extend_from_slice(b"\r\n");
}

fn number_line(out: &mut Vec<u8>, kind: u8, number: i64) {
    out.push(kind);
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// So many arguments and bytes a server takes at most; more is an error of the protocol.
const ARGUMENTS_MAX: i64 = 1024 * 1024;
const ARGUMENT_LENGTH_MAX: i64 = 512 * 1024 * 1024;

/// Takes commands out of the bytes of a client, which may come in any pieces. Commands without lengths ("inline") are
/// not understood.
#[derive(Default)]
pub struct Decoder {
    received: BytesMut,
    /// The command that is coming, and how many arguments it still lacks.
    arguments: Vec<Bytes>,
    missing: usize,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.received.put_slice(bytes);
    }

    /// The next command that is complete. An error means that the server answers it and closes the connection.
    pub fn next(&mut self) -> Result<Option<Vec<Bytes>>, Reply> {
        loop {
            if self.missing == 0 {
                let Some((count, length)) = self.header(b'*')? else { return Ok(None) };
                self.received.advance(length);
                if count > ARGUMENTS_MAX {
                    return Err(Reply::error("ERR Protocol error: invalid multibulk length"));
                }
                // Nothing at all is no command.
                let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else { continue };
                self.missing = count;
                self.arguments = Vec::with_capacity(count.min(64));
            }
            while self.missing > 0 {
                let Some((length, head)) = self.header(b'$')? else { return Ok(None) };
                if !(0..=ARGUMENT_LENGTH_MAX).contains(&length) {
                    return Err(Reply::error("ERR Protocol error: invalid bulk length"));
                }
                let length = length as usize;
                if self.received.len() < head + length + 2 {
                    return Ok(None);
                }
                self.received.advance(head);
                self.arguments.push(self.received.split_to(length).freeze());
                self.received.advance(2);
                self.missing -= 1;
            }
            return Ok(Some(std::mem::take(&mut self.arguments)));
        }
    }

    /// The number in the next line and the length of that line, once all of it is there.
    fn header(&self, kind: u8) -> Result<Option<(i64, usize)>, Reply> {
        let Some(first) = self.received.first() else { return Ok(None) };
        if *first != kind {
            let found = char::from(*first);
            return Err(Reply::error(format!("ERR Protocol error: expected '{}', got '{found}'", char::from(kind))));
        }
        let Some(end) = self.received.iter().position(|byte| *byte == b'\r') else { return Ok(None) };
        if self.received.len() < end + 2 {
            return Ok(None);
        }
        let number = super::number::integer(&self.received[1..end]);
        let name = if kind == b'*' { "multibulk" } else { "bulk" };
        let number = number.ok_or_else(|| Reply::error(format!("ERR Protocol error: invalid {name} length")))?;
        Ok(Some((number, end + 2)))
    }
}

/// How many bytes a command takes in this form.
pub fn length_of(command: &[Bytes]) -> u64 {
    let digits = |number: usize| number.checked_ilog10().unwrap_or_default() as u64 + 1;
    let head = |number: usize| 1 + digits(number) + 2;
    head(command.len()) + command.iter().map(|bytes| head(bytes.len()) + bytes.len() as u64 + 2).sum::<u64>()
}
