// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls of an asynchronous program: each on an endpoint and a thread of its own.

use super::shut_down;
use crate::device::{device_path, Slot};
use crate::error::{Call, Error};
use crate::port::Port;
use crate::protocol::{CallError, Request};
use crate::sys;
use crate::timeout::Timeout;
use dvk_abi::{ioctl, Endpoint, Message};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Endpoints that are kept for later calls. Each takes a slot of the node's lease.
const IDLE_MAX: usize = 8;

/// Makes calls in a container from any number of tasks at once.
///
/// Every call in progress has an endpoint of its own, bound to any free slot, and a thread of the
/// runtime for blocking calls: peers see different sources, and whoever calls under its own name
/// does so with a [`Port`] in a thread of its own. Some idle endpoints are kept, until the last
/// clone is dropped.
///
/// Dropping the future of a call ends it: its endpoint is unbound, which the server learns as it
/// learns of any client's death, and its thread returns at once. See
/// [the module](crate::asynchronous) for why.
///
/// All methods panic outside of a tokio runtime.
#[derive(Clone)]
pub struct AsyncCalls {
    path: Arc<PathBuf>,
    stock: Arc<Stock<Port>>,
}

impl AsyncCalls {
    /// Calls in `container`, whose device is at its usual place. Nothing is opened yet.
    pub fn new(container: u32) -> Self {
        Self::at(device_path(container))
    }

    /// Calls in the container whose device is at `path`. Nothing is opened yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: Arc::new(path.into()), stock: Arc::default() }
    }

    /// Does `work` with an endpoint that nobody else uses meanwhile, on a thread for blocking
    /// calls: several calls in a row, or one that lends memory.
    ///
    /// If the future is dropped, each of its calls fails from then on (`ENOTCONN`, or `EOWNERDEAD`
    /// for the one in progress), and the work is expected to end because of that.
    ///
    /// # Errors
    /// Those of [`Port::open`]; `ECANCELED` if the runtime shuts down before the work begins.
    ///
    /// # Panics
    /// If `work` does.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Port) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.stock.run(|| Port::open(&*self.path, Slot::Any), work).await
    }

    /// Sends `message` to `to` and waits for its reply; see [`Port::sendrec`].
    ///
    /// # Errors
    /// As there, and those of [`run`](Self::run).
    pub async fn sendrec(
        &self,
        to: Endpoint,
        message: &Message,
        timeout: Timeout,
    ) -> Result<Message, Error> {
        let message = *message;
        self.run(move |port| port.sendrec(to, &message, timeout)).await?
    }

    /// Sends `message` to `to` and waits until it is received; see [`Port::send`].
    ///
    /// # Errors
    /// As there, and those of [`run`](Self::run).
    pub async fn send(
        &self,
        to: Endpoint,
        message: &Message,
        timeout: Timeout,
    ) -> Result<(), Error> {
        let message = *message;
        self.run(move |port| port.send(to, &message, timeout)).await?
    }

    /// Makes a request of a protocol and waits for its result.
    ///
    /// # Errors
    /// Those of [`Ipc::call`](crate::Ipc::call), and of [`run`](Self::run).
    pub async fn call<R: Request>(
        &self,
        server: Endpoint,
        request: &R,
        timeout: Timeout,
    ) -> Result<R::Reply, CallError<R::Error>> {
        let message = request.message();
        let reply = self.sendrec(server, &message, timeout).await.map_err(CallError::Exchange)?;
        crate::protocol::read_reply::<R, _>(server, &reply)
    }
}

impl fmt::Debug for AsyncCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncCalls").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What can be made to fail all calls in it, also one in progress.
trait Unbind: Send + Sync + 'static {
    fn unbind(&self);
}

impl Unbind for Port {
    fn unbind(&self) {
        // It fails if the container is gone, and then there is no call to end either.
        let _ = sys::call_bare::<{ ioctl::UNBIND }>(self);
    }
}

/// Endpoints that no call uses.
struct Stock<P> {
    idle: Mutex<Vec<Arc<P>>>,
}

impl<P> Default for Stock<P> {
    fn default() -> Self {
        Self { idle: Mutex::default() }
    }
}

impl<P: Unbind> Stock<P> {
    async fn run<T: Send + 'static>(
        &self,
        bind: impl FnOnce() -> Result<P, Error>,
        work: impl FnOnce(&P) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let port = match idle {
            Some(port) => port,
            None => Arc::new(bind()?),
        };
        let mut lent = Lent(Some(port.clone()));
        let done = tokio::task::spawn_blocking(move || work(&port)).await;
        match done {
            Ok(result) => {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                if idle.len() < IDLE_MAX {
                    idle.extend(lent.0.take());
                }
                Ok(result)
            }
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(shut_down(Call::Bind)),
            },
        }
    }
}

/// The endpoint of a call in progress. Dropped with it, the call ends.
struct Lent<P: Unbind>(Option<Arc<P>>);

impl<P: Unbind> Drop for Lent<P> {
    fn drop(&mut self) {
        if let Some(port) = &self.0 {
            port.unbind();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Condvar;
    use std::time::Duration;

    /// A port whose only call waits until it is unbound.
    #[derive(Default)]
    struct Fake {
        unbound: Mutex<bool>,
        changed: Condvar,
    }

    impl Fake {
        fn wait(&self) {
            let unbound = self.unbound.lock().unwrap();
            drop(self.changed.wait_while(unbound, |unbound| !*unbound).unwrap());
        }

        fn is_unbound(&self) -> bool {
            *self.unbound.lock().unwrap()
        }
    }

    impl Unbind for Fake {
        fn unbind(&self) {
            *self.unbound.lock().unwrap() = true;
            self.changed.notify_all();
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn an_endpoint_is_used_again() {
        let binds = AtomicUsize::new(0);
        let bind = || {
            binds.fetch_add(1, Ordering::Relaxed);
            Ok(Fake::default())
        };
        let stock = Stock::default();
        runtime().block_on(async {
            assert_eq!(stock.run(bind, |_| 1).await, Ok(1));
            assert_eq!(stock.run(bind, Fake::is_unbound).await, Ok(false));
        });
        assert_eq!(binds.into_inner(), 1);
    }

    #[test]
    fn calls_at_once_have_an_endpoint_each_and_some_are_kept() {
        let stock = Arc::new(Stock::<Fake>::default());
        let meet = Arc::new(std::sync::Barrier::new(IDLE_MAX + 1));
        let (tell, told) = std::sync::mpsc::channel();
        runtime().block_on(async {
            let call = |_| {
                let (stock, meet, tell) = (stock.clone(), meet.clone(), tell.clone());
                let work = move |port: &Fake| {
                    meet.wait();
                    tell.send(core::ptr::from_ref(port).addr()).unwrap();
                };
                tokio::spawn(async move { stock.run(|| Ok(Fake::default()), work).await })
            };
            for call in (0..=IDLE_MAX).map(call).collect::<Vec<_>>() {
                call.await.unwrap().unwrap();
            }
        });
        let used: std::collections::HashSet<_> = told.try_iter().collect();
        assert_eq!(used.len(), IDLE_MAX + 1);
        assert_eq!(stock.idle.lock().unwrap().len(), IDLE_MAX);
    }

    #[test]
    fn a_dropped_call_ends_and_its_endpoint_is_not_used_again() {
        let stock = Stock::default();
        let (tell, told) = std::sync::mpsc::channel();
        let runtime = runtime();
        runtime.block_on(async {
            let work = move |port: &Fake| {
                port.wait();
                tell.send(port.is_unbound()).unwrap();
            };
            let call = stock.run(|| Ok(Fake::default()), work);
            assert!(tokio::time::timeout(Duration::from_millis(20), call).await.is_err());
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(true));
        assert!(stock.idle.lock().unwrap().is_empty());
        // Were the thread still waiting, so would this.
        drop(runtime);
    }

    #[test]
    fn a_device_that_is_missing_is_named() {
        let calls = AsyncCalls::new(4_000_000_000);
        let message = Message::new(1);
        let called = calls.sendrec(Endpoint::SELF, &message, Timeout::Forever);
        let error = runtime().block_on(called).unwrap_err();
        assert!(error.to_string().starts_with("open /dev/dvk-dc4000000000: no such device"));
    }

    #[test]
    fn a_panic_is_handed_on() {
        let stock = Stock::default();
        let run = || runtime().block_on(stock.run(|| Ok(Fake::default()), |_| panic!("planned")));
        let result: Result<Result<(), Error>, _> =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        assert_eq!(result.unwrap_err().downcast_ref(), Some(&"planned"));
        assert!(stock.idle.lock().unwrap().is_empty());
    }
}
