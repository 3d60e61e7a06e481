//! TLS by rustls, driven in memory.

use super::{Secured, StackError};
use crate::tls::subject;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::io::{BufRead, Write};
use std::sync::Arc;

/// One side of a TLS connection.
pub(crate) struct Tls {
    connection: Connection,
    ended: bool,
}

impl Tls {
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, StackError> {
        Ok(Self::over(ServerConnection::new(config)?.into()))
    }

    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, StackError> {
        Ok(Self::over(ClientConnection::new(config, name)?.into()))
    }

    fn over(mut connection: Connection) -> Self {
        // What is given is encrypted and taken out at once, and limited above.
        connection.set_buffer_limit(None);
        Self { connection, ended: false }
    }

    /// Takes some of `wire`. What is to be answered goes to `out`.
    pub(super) fn feed(&mut self, wire: &mut &[u8], out: &mut Vec<u8>) -> Result<(), StackError> {
        if self.connection.read_tls(wire).is_err() {
            // Plain text waits, which is taken first; this does not come about.
            return Ok(());
        }
        let result = self.connection.process_new_packets();
        // An alert, if it failed.
        self.flush(out);
        self.ended = result?.peer_has_closed();
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        !self.connection.is_handshaking()
    }

    /// Whether the peer has said that nothing more comes.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next bytes of plain text; they stay until they are consumed.
    pub(super) fn chunk(&mut self) -> &[u8] {
        self.connection.reader().into_first_chunk().unwrap_or_default()
    }

    pub(super) fn consume(&mut self, n: usize) {
        if n > 0 {
            self.connection.reader().consume(n);
        }
    }

    /// Encrypts.
    pub(super) fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        // Without a limit all of it is taken.
        let _ = self.connection.writer().write_all(plain);
        self.flush(out);
    }

    /// Takes out what is to be sent.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // Writing into memory does not fail.
            if self.connection.write_tls(out).is_err() {
                return;
            }
        }
    }

    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        self.connection.send_close_notify();
        self.flush(out);
    }

    pub(super) fn secured(&self) -> Secured {
        let certificate = self.connection.peer_certificates().and_then(<[_]>::first);
        let named = |name: Option<String>| name.unwrap_or_default();
        Secured {
            version: named(self.connection.protocol_version().map(|version| format!("{version:?}"))),
            cipher: named(
                self.connection.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite())),
            ),
            server_name: match &self.connection {
                Connection::Server(server) => server.server_name().map(str::to_owned),
                Connection::Client(_) => None,
            },
            subject: certificate.and_then(|certificate| subject(certificate)),
        }
    }
}
