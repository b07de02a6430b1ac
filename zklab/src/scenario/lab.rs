//! A lab of one case: made for it, driven by the requests that the commands use, and gone with it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::clock::now_us;
use crate::ensemble::status::Status;
use crate::event::LabEvent;
use crate::failure::{Context, Exit, Failure};
use crate::id::NodeId;
use crate::supervisor::client::{Connection, Early};
use crate::supervisor::home::Root;
use crate::supervisor::protocol::{Request, UpReport, UpRequest};

/// A supervisor that does not answer for this long has lost itself.
const PATIENCE: Duration = Duration::from_secs(90);

/// The events of a lab as they came.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    events: Mutex<Vec<LabEvent>>,
    tip: watch::Sender<usize>,
}

impl EventLog {
    fn push(&self, event: LabEvent) {
        let mut events = self.lock();
        events.push(event);
        let count = events.len();
        drop(events);
        self.tip.send_replace(count);
    }

    /// Wakes up at every new event.
    pub(super) fn subscribe(&self) -> watch::Receiver<usize> {
        self.tip.subscribe()
    }

    /// What `look` makes of them.
    pub(super) fn with<T>(&self, look: impl FnOnce(&[LabEvent]) -> T) -> T {
        look(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<LabEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lab. When it is dropped its supervisor hears that and ends it.
#[derive(Debug)]
pub(super) struct Lab {
    root: Root,
    name: String,
    /// Time 0 of its events, by the system's clock.
    pub(super) start_us: u64,
    /// What it is.
    pub(super) report: UpReport,
    /// What happens in it.
    pub(super) events: Arc<EventLog>,
    /// The supervisor ends the lab when this is closed.
    lease: Connection,
}

impl Lab {
    /// Makes it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn up(request: UpRequest) -> Result<Self, Failure> {
        let root = Root::open()?;
        let (name, net, start_us) = (request.name.clone(), request.net, request.asked_us);
        let mut lease = Connection::launch(net)?;
        let report = lease
            .call(&Request::Up(request), |_| true)?
            .ok_or_else(|| Failure::new(Exit::Interrupted, "interrupted"))?;
        let events = Arc::new(EventLog::default());
        let mut listening = Connection::open(&root, &name)?;
        let log = Arc::clone(&events);
        thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || {
                let request = Request::Events { follow: true };
                // It ends with the lab.
                let _ = listening.call::<u64>(&request, |early| {
                    if let Early::Event(event) = early {
                        log.push(event);
                    }
                    true
                });
            })
            .doing(|| "cannot start a thread".to_owned())?;
        Ok(Self {
            root,
            name,
            start_us,
            report,
            events,
            lease,
        })
    }

    /// Asks the supervisor one thing.
    ///
    /// # Errors
    /// What it says, or that it does not answer.
    pub(super) async fn ask<T>(&self, request: Request) -> Result<T, Failure>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let (root, name) = (self.root.clone(), self.name.clone());
        let asking = tokio::task::spawn_blocking(move || {
            Connection::open(&root, &name)?
                .call(&request, |_| true)?
                .ok_or_else(|| Failure::new(Exit::Interrupted, "interrupted"))
        });
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(done) => done.doing(|| "a question could not be asked".to_owned())?,
            Err(_) => Err(Failure::environment("the supervisor does not answer")),
        }
    }

    /// What every node does.
    ///
    /// # Errors
    /// If the supervisor does not say.
    pub(super) async fn status(&self) -> Result<Status, Failure> {
        self.ask(Request::Status).await
    }

    /// Now, as events count.
    pub(super) fn now(&self) -> u64 {
        now_us().saturating_sub(self.start_us)
    }

    /// A node's directory.
    pub(super) fn node_dir(&self, id: NodeId) -> PathBuf {
        self.report.data_dir.join(id.to_string())
    }

    /// Ends it and waits until nothing is left.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub(super) async fn down(self) -> Result<(), Failure> {
        let ended = self
            .ask::<serde_json::Value>(Request::Down { keep_data: false })
            .await;
        drop(self.lease);
        ended.map(drop)
    }
}
