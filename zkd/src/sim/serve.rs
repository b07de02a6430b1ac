//! Serving the simulated clients: their connections, their bytes in both directions, and their turns.

use std::sync::Arc;

use bytes::BytesMut;

use super::client::Connection;
use super::mutation::Mutation;
use super::server::{ConnWaker, Served};
use super::world::{Event, World};
use crate::ids::{ConnId, ServerId};
use crate::peer::Input;
use crate::pipeline::{Delivery, Request, Submit};
use crate::record::opcode::OpCode;
use crate::record::proto::xid;

impl World {
    /// A client looks around: connects, works, or pings.
    pub(super) fn client_turn(&mut self, client: usize) {
        // Now and then a client falls silent, for longer than its session lives.
        let pause_us = if !self.healing && self.prng.one_in(150) {
            self.prng.between(1_000_000, 25_000_000)
        } else {
            self.prng.between(1_000, 300_000)
        };
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
        if !self.healing && self.prng.one_in(80) {
            self.leave_behind(client);
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

    /// The client goes to another server while its old connection still stands there, with requests on
    /// their way that arrive before or after the session has moved.
    fn leave_behind(&mut self, client: usize) {
        let bytes = self.clients[client].burst();
        self.clients[client].upstream_us += self.prng.between(0, 200_000);
        self.send_from(client, bytes);
        self.clients[client].closed();
        self.connect(client);
    }

    fn connect(&mut self, client: usize) {
        let ids: Vec<_> = self.servers.iter().map(|s| s.id).collect();
        let id = *self.prng.pick(&ids);
        self.connect_to(client, id);
    }

    /// Connects a client to this server, if it is there.
    pub(super) fn connect_to(&mut self, client: usize, id: ServerId) {
        let conn = self.fresh_conn();
        let serial = self.clients[client].serial;
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
                serial,
                input: BytesMut::new(),
            },
        );
        let bytes = self.clients[client].connected(Connection { server: id, conn });
        self.send_from(client, bytes);
    }

    /// Sends what a client has to say, in the order in which it said so.
    pub(super) fn send_from(&mut self, client: usize, bytes: Vec<u8>) {
        let Some(at) = self.clients[client].connection else {
            return;
        };
        if bytes.is_empty() {
            return;
        }
        self.clients[client].leaving(&self.checks);
        let delay = self.network.delay_us();
        let at_us = (self.now_us + delay).max(self.clients[client].upstream_us);
        self.clients[client].upstream_us = at_us;
        self.at(at_us, Event::ToServer { at, bytes });
    }

    pub(super) fn bytes_for_server(&mut self, at: Connection, bytes: &[u8]) {
        let id = at.server;
        // A stopped process takes nothing; its machine keeps the bytes for it.
        if let Some(process) = &mut self.server(id).process
            && let Some(served) = process.connections.get_mut(&at.conn)
        {
            served.input.extend_from_slice(bytes);
        }
        if self.is_paused(id) {
            let bytes = Vec::new();
            self.after(20_000, Event::ToServer { at, bytes });
            return;
        }
        self.serve(id, at.conn);
        self.carry_out(id);
    }

    /// Lets a connection look at the bytes that came.
    fn serve(&mut self, id: ServerId, conn: ConnId) {
        let now = self.now();
        let local_sync = self.plan.mutation == Mutation::LocalSync;
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
            match submit {
                Submit::Request(Request {
                    session, cxid, op, ..
                }) if local_sync && op == OpCode::Sync => {
                    process
                        .zk
                        .apply(&[Delivery::SyncDone { session, cxid }], now);
                }
                submit => process.peer.step(now, input_of(submit)),
            }
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
        let serial = served.serial;
        let waiting = !close && !served.input.is_empty();
        if close {
            process.zk.close(conn);
            process.connections.remove(&conn);
        }
        let bytes_was_empty = bytes.is_empty();
        if self.plan.mutation == Mutation::LostWatchEvent {
            self.lose_events(&mut bytes);
        }
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
            let at = Connection { server: id, conn };
            let bytes = Vec::new();
            self.after(1, Event::ToServer { at, bytes });
        }
    }

    /// What [`Mutation::LostWatchEvent`] does to the frames of a connection.
    fn lose_events(&mut self, bytes: &mut Vec<u8>) {
        let mut rest = std::mem::take(bytes);
        while let Some(length) = rest.first_chunk::<4>() {
            let length = 4 + u32::from_be_bytes(*length) as usize;
            let frame: Vec<u8> = rest.drain(..length.min(rest.len())).collect();
            let is_event = frame.get(4..8) == Some(&xid::NOTIFICATION.0.to_be_bytes());
            if !is_event || !self.prng.one_in(10) {
                bytes.extend(frame);
            }
        }
        bytes.append(&mut rest);
    }

    pub(super) fn bytes_for_client(&mut self, client: usize, serial: u64, bytes: &[u8]) {
        if self.clients[client].serial != serial {
            return;
        }
        let told = self.checks.acked().len();
        let goes_on = self.clients[client].on_bytes(bytes, &mut self.checks);
        if self.plan.scripted {
            self.note_answers(client, told);
        }
        if !goes_on {
            self.drop_connection(client);
        }
        let bytes = self.clients[client].take_outbox();
        self.send_from(client, bytes);
    }

    fn note_answers(&mut self, client: usize, known: usize) {
        let new: Vec<_> = self.checks.acked()[known..]
            .iter()
            .filter_map(|acked| Some((acked.zxid, acked.created.clone()?)))
            .collect();
        for (zxid, path) in new {
            self.note(format_args!(
                "c{client} is told that {path} was created at {zxid}"
            ));
        }
    }

    pub(super) fn client_cut(&mut self, client: usize, serial: u64) {
        if self.clients[client].serial == serial {
            self.drop_connection(client);
        }
    }

    pub(super) fn drop_connection(&mut self, client: usize) {
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
