//! Serving the simulated clients: their connections, their bytes in both directions, and their turns.

use std::sync::Arc;

use bytes::BytesMut;

use super::client::Connection;
use super::server::{ConnWaker, Served};
use super::world::{Event, World};
use crate::ids::{ConnId, ServerId};
use crate::peer::Input;
use crate::pipeline::Submit;

impl World {
    /// A client looks around: connects, works, or pings.
    pub(super) fn client_turn(&mut self, client: usize) {
        let pause_us = self.prng.between(1_000, 300_000);
        self.after(pause_us, Event::ClientTurn(client));
        if self.clients[client].connection.is_none() {
            if !self.parting {
                self.connect(client);
            }
            return;
        }
        if !self.clients[client].is_attached() {
            return;
        }
        let bytes = if self.parting {
            self.clients[client].close_session()
        } else if self.prng.one_in(4) {
            self.clients[client].ping()
        } else {
            self.clients[client].work()
        };
        self.send_from(client, bytes);
    }

    fn connect(&mut self, client: usize) {
        let ids: Vec<_> = self.servers.iter().map(|s| s.id).collect();
        let id = *self.prng.pick(&ids);
        let conn = self.fresh_conn();
        let now = self.now();
        if self.is_paused(id) {
            return;
        }
        let Some(process) = &mut self.server(id).process else {
            return;
        };
        let waker = Arc::new(ConnWaker {
            conn,
            wakes: Arc::clone(&process.wakes),
        });
        let peer = std::net::IpAddr::from([10, 0, 1, 1]);
        let Ok(cnxn) = process.zk.open(conn, peer, waker, now.instant) else {
            return;
        };
        process.connections.insert(
            conn,
            Served {
                cnxn,
                client,
                input: BytesMut::new(),
            },
        );
        let bytes = self.clients[client].connected(Connection { server: id, conn });
        self.send_from(client, bytes);
    }

    fn send_from(&mut self, client: usize, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let serial = self.clients[client].serial;
        let delay = self.network.delay_us();
        let at_us = (self.now_us + delay).max(self.clients[client].upstream_us);
        self.clients[client].upstream_us = at_us;
        self.at(
            at_us,
            Event::ToServer {
                client,
                serial,
                bytes,
            },
        );
    }

    pub(super) fn to_server(&mut self, client: usize, serial: u64, bytes: &[u8]) {
        let Some(connection) = self.clients[client].connection else {
            return;
        };
        if self.clients[client].serial != serial {
            return;
        }
        let id = connection.server;
        // A stopped process takes nothing; its machine keeps the bytes for it.
        if let Some(process) = &mut self.server(id).process
            && let Some(served) = process.connections.get_mut(&connection.conn)
        {
            served.input.extend_from_slice(bytes);
        }
        if self.is_paused(id) {
            self.after(
                20_000,
                Event::ToServer {
                    client,
                    serial,
                    bytes: Vec::new(),
                },
            );
            return;
        }
        self.serve(id, connection.conn);
        self.carry_out(id);
    }

    /// Lets a connection look at the bytes that came.
    fn serve(&mut self, id: ServerId, conn: ConnId) {
        let now = self.now();
        let Some(process) = &mut self.server(id).process else {
            return;
        };
        let Some(served) = process.connections.get_mut(&conn) else {
            return;
        };
        let mut submits = Vec::new();
        served
            .cnxn
            .on_bytes(&process.zk, &mut served.input, now, &mut submits);
        for submit in submits {
            process.peer.step(now, input_of(submit));
        }
        // What was answered in place leaves as well.
        process.wakes.push(conn);
    }

    /// Sends on what the connections of a server have to say.
    pub(super) fn flush_clients(&mut self, id: ServerId) {
        loop {
            let Some(process) = &mut self.server(id).process else {
                return;
            };
            let woken = process.wakes.drain();
            if woken.is_empty() {
                return;
            }
            for conn in woken {
                self.flush_client(id, conn);
            }
        }
    }

    fn flush_client(&mut self, id: ServerId, conn: ConnId) {
        let Some(process) = &mut self.server(id).process else {
            return;
        };
        let Some(served) = process.connections.get(&conn) else {
            return;
        };
        let client = served.client;
        let mut bytes = Vec::new();
        let close = served.cnxn.take_output(&mut bytes).close;
        let waiting = !close && !served.input.is_empty();
        if close {
            process.zk.close(conn);
            process.connections.remove(&conn);
        }
        let bytes_was_empty = bytes.is_empty();
        let serial = self.clients[client].serial;
        let delay = self.network.delay_us();
        let at_us = (self.now_us + delay).max(self.clients[client].tail_us);
        self.clients[client].tail_us = at_us;
        if !bytes.is_empty() {
            self.at(
                at_us,
                Event::ToClient {
                    client,
                    serial,
                    bytes,
                },
            );
        }
        if close {
            self.at(at_us, Event::ClientCut { client, serial });
        }
        if waiting && !bytes_was_empty {
            // Frames that were held back while the session was being opened.
            self.after(
                1,
                Event::ToServer {
                    client,
                    serial,
                    bytes: Vec::new(),
                },
            );
        }
    }

    pub(super) fn to_client(&mut self, client: usize, serial: u64, bytes: &[u8]) {
        if self.clients[client].serial != serial {
            return;
        }
        if !self.clients[client].on_bytes(bytes, &mut self.checks) {
            self.drop_connection(client);
        }
    }

    pub(super) fn client_cut(&mut self, client: usize, serial: u64) {
        if self.clients[client].serial == serial {
            self.drop_connection(client);
        }
    }

    fn drop_connection(&mut self, client: usize) {
        let Some(connection) = self.clients[client].connection else {
            return;
        };
        self.clients[client].closed();
        if let Some(process) = &mut self.server(connection.server).process {
            process.zk.close(connection.conn);
            process.connections.remove(&connection.conn);
        }
    }

    pub(super) fn cut_clients_of(&mut self, id: ServerId) {
        for client in 0..self.clients.len() {
            if self.clients[client]
                .connection
                .is_some_and(|connection| connection.server == id)
            {
                self.drop_connection(client);
            }
        }
    }
}

fn input_of(submit: Submit) -> Input {
    match submit {
        Submit::Request(request) => Input::Request(request),
        Submit::Revalidate {
            session,
            timeout_ms,
        } => Input::Revalidate {
            session,
            timeout_ms,
        },
    }
}
