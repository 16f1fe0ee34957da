//! Hands a message and open files to another process over a Unix socket, so that nothing of it is in an argument, in an
//! environment, or in a descriptor that other children could inherit.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// The longest message.
const LONGEST: usize = 4 << 20;
/// How many files go with a message at most.
const MOST_FILES: usize = 3;

/// Sends a message and copies of these files. The length goes first, and the files go with it.
pub(crate) fn send<T: Serialize>(
    socket: &UnixStream,
    message: &T,
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let body = Zeroizing::new(serde_json::to_vec(message)?);
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= LONGEST);
    let length = length.ok_or_else(|| invalid("the description of the program is too long"))?.to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(invalid("too many open files go with a message"));
    }
    // Four bytes on an empty stream socket are sent whole or not at all.
    let sent = sendmsg(socket, &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent != length.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    let mut socket = socket;
    socket.write_all(&body)
}

/// Receives a message and exactly `N` files; they are closed on exec.
pub(crate) fn receive<T: DeserializeOwned, const N: usize>(
    socket: &UnixStream,
) -> io::Result<(T, [OwnedFd; N])> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut length)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL,
    )?;
    if received.bytes != length.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let files: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        })
        .flatten()
        .collect();
    let files =
        <[OwnedFd; N]>::try_from(files).map_err(|_| invalid("a message came with the wrong files"))?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(invalid("a message is too long"));
    }
    let mut body = Zeroizing::new(vec![0; length]);
    let mut socket = socket;
    socket.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, files))
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_message_arrives_with_its_files() {
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        let (reader, mut writer) = io::pipe().expect("a pipe");
        send(&here, &"a message", &[reader.as_fd()]).expect("sent");
        drop(reader);
        let (message, [file]) = receive::<String, 1>(&there).expect("received");
        assert_eq!(message, "a message");
        writer.write_all(b"through the pipe").expect("written");
        drop(writer);
        assert_eq!(io::read_to_string(io::PipeReader::from(file)).expect("read"), "through the pipe");
    }

    #[test]
    fn a_message_with_other_files_than_expected_is_refused() {
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        send(&here, &"a message", &[here.as_fd()]).expect("sent");
        assert!(receive::<String, 3>(&there).is_err());
    }

    /// SRC-11: a gateway that was killed in the middle leaves a supervisor that starts nothing.
    #[test]
    fn a_message_that_breaks_off_is_refused() {
        for sent in [&[][..], &[9, 0], &[9, 0, 0, 0], &[9, 0, 0, 0, b'"', b'a'], &[255, 255, 255, 255]] {
            let (mut here, there) = UnixStream::pair().expect("a pair of sockets");
            here.write_all(sent).expect("written");
            drop(here);
            assert!(receive::<String, 0>(&there).is_err(), "{sent:?}");
        }
    }
}
