//! The admin's port, as a part of the service.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use tokio::sync::{oneshot, watch};

use super::{
    bind::{Listening, SocketFile, bind, cannot_listen},
    board::Board,
    hand_over::{Role, SocketOf},
    inherited::Inherited,
};
use crate::{admin, config::model::ListenAddress};

/// Permissions of the admin's unix socket.
const ADMIN_MODE: u32 = 0o660;

/// The admin server.
pub struct AdminServing {
    pub address: ListenAddress,
    pub bound: ListenAddress,
    /// A second handle of its socket: see [`bind`].
    pub held: OwnedFd,
    pub file: Option<SocketFile>,
    /// Dropped to end it.
    stop: Option<oneshot::Sender<()>>,
}

impl AdminServing {
    /// No further calls: a successor answers, by the same socket.
    pub fn leave(&mut self) {
        self.stop = None;
    }

    /// A further handle of its socket, with what it is for.
    pub fn handed(&self) -> io::Result<(SocketOf, OwnedFd)> {
        Ok((SocketOf::new(Role::Admin, "admin", &self.address, false), self.held.try_clone()?))
    }
}

/// The admin's socket, before it serves.
pub struct AdminSocket {
    bound: ListenAddress,
    held: OwnedFd,
    file: Option<SocketFile>,
    listener: admin::Listener,
}

/// `moves`: the admin's present socket, where it is to have another address.
pub fn bind_admin(
    address: &ListenAddress,
    moves: Option<BorrowedFd<'_>>,
    inherited: &Inherited,
) -> Result<AdminSocket, String> {
    let bound = || -> io::Result<AdminSocket> {
        let (listening, is_ours) = match inherited.take(Role::Admin, "admin", address) {
            Some(taken) => taken,
            None => (bind(address, ADMIN_MODE, moves.as_slice())?, true),
        };
        let held = listening.as_fd().try_clone_to_owned()?;
        let bound = listening.local_address(address);
        let file = if is_ours { SocketFile::of(address) } else { None };
        let listener = admin::Listener::new(match listening {
            Listening::Tcp(l) => admin::Socket::Tcp(l),
            Listening::Unix(l) => admin::Socket::Unix(l),
        })?;
        Ok(AdminSocket { bound, held, file, listener })
    };
    bound().map_err(|e| cannot_listen("admin", address, &e))
}

/// A turn that has come.
pub fn at_once() -> watch::Receiver<bool> {
    watch::channel(true).1
}

/// Answers once `its_turn` turns true.
pub fn serve_admin(
    board: &Arc<Board>,
    address: &ListenAddress,
    socket: AdminSocket,
    mut its_turn: watch::Receiver<bool>,
) -> AdminServing {
    let AdminSocket { bound, held, file, listener } = socket;
    let (stop, stopped) = oneshot::channel::<()>();
    let (board, at) = (board.clone(), bound.clone());
    let waits = !*its_turn.borrow();
    let tell = move || {
        tracing::info!(listener = %"admin", address = %at, "listening");
    };
    if !waits {
        tell();
    }
    tokio::spawn(async move {
        // A value that was true when its sender went is still seen.
        if its_turn.wait_for(|turn| *turn).await.is_err() {
            return;
        }
        if waits {
            tell();
        }
        let ended = async {
            // Its sender is dropped to end it.
            let _ = stopped.await;
        };
        admin::serve(listener, board, ended).await;
    });
    AdminServing { address: address.clone(), bound, held, file, stop: Some(stop) }
}
