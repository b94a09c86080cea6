//! The first bytes of a connection say what it speaks. They are read under the handshake's deadline and
//! then given back, so that a connection that says nothing never reaches HTTP, where it could stay.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// How an HTTP/2 client begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose first bytes were read ahead.
pub(super) struct Opened<IO> {
    io: IO,
    ahead: Vec<u8>,
    given: usize,
    is_http2: bool,
}

/// Waits until the first bytes tell HTTP/2 from anything else. `None`: it was closed without a word.
pub(super) async fn open<IO: AsyncRead + Unpin>(mut io: IO) -> io::Result<Option<Opened<IO>>> {
    let mut ahead = Vec::with_capacity(PREFACE.len());
    let mut undecided = (&mut io).take(u64::try_from(PREFACE.len()).unwrap_or(u64::MAX));
    while PREFACE.starts_with(&ahead) && ahead.len() < PREFACE.len() {
        if undecided.read_buf(&mut ahead).await? == 0 {
            return if ahead.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
    let is_http2 = ahead == PREFACE;
    Ok(Some(Opened { io, ahead, given: 0, is_http2 }))
}

impl<IO> Opened<IO> {
    /// Did it begin as HTTP/2?
    pub(super) fn is_http2(&self) -> bool {
        self.is_http2
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Opened<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = self.ahead.get(self.given..).unwrap_or_default();
        let count = rest.len().min(buf.remaining());
        if count == 0 {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        buf.put_slice(rest.get(..count).unwrap_or_default());
        self.given = self.given.saturating_add(count);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Opened<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Never: where it can, h2 writes a message of more than 256 bytes apart from the frames around it, so that an
    /// answer and its trailers are two writes and two TLS records. Where it can't, it copies messages of up to 1 KiB,
    /// which most answers are, and all that is ready leaves in one write.
    fn is_write_vectored(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// What comes out when these pieces come in one after the other and then the end.
    async fn opened(pieces: &[&[u8]]) -> io::Result<Option<(bool, Vec<u8>)>> {
        let (mut client, server) = tokio::io::duplex(64);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        tokio::spawn(async move {
            for piece in pieces {
                client.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let Some(mut opened) = open(server).await? else {
            return Ok(None);
        };
        let mut all = Vec::new();
        opened.read_to_end(&mut all).await?;
        Ok(Some((opened.is_http2(), all)))
    }

    #[tokio::test]
    async fn first_bytes_tell_and_are_given_back() {
        let whole = [PREFACE, b"and more"].concat();
        let http2 = opened(&[&whole]).await.unwrap().unwrap();
        assert_eq!(http2, (true, whole.clone()));
        let singly: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(opened(&singly).await.unwrap().unwrap(), (true, whole));
        let http1 = opened(&[b"P", b"OST / HTTP/1.1\r\n"]).await.unwrap().unwrap();
        assert_eq!(http1, (false, b"POST / HTTP/1.1\r\n".to_vec()));
    }

    #[tokio::test]
    async fn silence_and_half_a_preface_are_told_apart() {
        assert_eq!(opened(&[]).await.unwrap(), None);
        opened(&[b"PRI * HT"]).await.unwrap_err();
    }
}
