//! Sockets, TLS, who is on the other end of a connection, and HTTP/2 with its limits.
//!
//! A listener is bound in [`listen`] and given to [`serve::serve`], which owns the accept loop and every
//! connection until shutdown. [`tls::TlsStore`] holds what a handshake needs and takes it anew from the
//! files while we run. Each request carries an `Arc<`[`peer::Peer`]`>` in its extensions: what the
//! connection knows of its other end. Every bound is in [`limits`].

pub mod application;
mod client_files;
mod connection;
mod files;
pub mod limits;
pub mod listen;
mod opening;
pub mod peer;
pub mod serve;
#[cfg(test)]
mod testing;
pub mod tls;
mod tls_error;

pub use application::{Application, Security};
pub use client_files::{ClientFiles, ClientPem};
pub use files::{ClientAuth, TlsFiles};
pub use limits::{Gate, Limits, TransportCounters};
pub use peer::{Peer, Standing};
pub use serve::serve;
pub use tls::{CertificateRole, Clock, TlsStore};
pub use tls_error::TlsError;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 alone, over TLS by ALPN `h2`, in plain text with prior knowledge: for gRPC.
    Http2Only,
    /// HTTP/2 or HTTP/1.1, as the first bytes say: for JSON.
    Auto,
}
