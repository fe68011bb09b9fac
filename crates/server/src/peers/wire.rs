//! A socket between two replicas, and what it shows of the other side's life.
//!
//! A ping is answered after all that was written before it has arrived. If that is megabytes, a slow link takes longer
//! than a ping may, although all is well. So the system is to hold little that it has not sent yet: what HTTP/2 still
//! has, a ping overtakes, except for the frame that was begun. And a connection that moves is not dead, answered or not.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How much the system may hold of what it has not sent yet: enough for it to go on until more comes, and on a link of
/// some megabits less than a silent peer's time. What was sent and not acknowledged does not count, so a long link is
/// filled as before.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 256 << 10;

/// How often the other side showed that it lives.
#[derive(Debug, Default)]
pub(super) struct Signs(AtomicU64);

impl Signs {
    /// A number that changes with every sign.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// See the module.
pub(super) struct Wire {
    stream: TcpStream,
    /// The last attempt to write found no room.
    full: bool,
    signs: Arc<Signs>,
}

impl Wire {
    /// A new connection, prepared.
    ///
    /// # Errors
    /// If it broke already.
    pub(super) fn new(stream: TcpStream) -> io::Result<Wire> {
        stream.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        if let Err(error) = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES) {
            // It works all the same, unless links are slow.
            tracing::debug!("the system holds more than it was asked to: {error}");
        }
        Ok(Wire { stream, full: false, signs: Arc::default() })
    }

    /// The other side's signs of life.
    pub(super) fn signs(&self) -> Arc<Signs> {
        Arc::clone(&self.signs)
    }

    /// What was written is no sign: a system takes some from us for a peer that vanished, and with few messages that
    /// lasts for minutes. But once it would take no more, only the other side can make room again.
    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let was_full = std::mem::replace(&mut self.full, written.is_pending());
        if was_full && matches!(written, Poll::Ready(Ok(_))) {
            self.signs.add();
        }
        written
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.signs.add();
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
