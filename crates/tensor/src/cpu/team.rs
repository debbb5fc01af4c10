//! Threads for work of microseconds: what a token needs is hundreds of small products one after another, and waking
//! rayon's threads for each costs as much as the product (18 against 9 µs for 3.5 MB from memory, two cores).
//!
//! The threads of the team wait for the next piece of work by spinning, and go to sleep after [`PATIENCE`]. A job is
//! cut into pieces that whoever is free takes. The caller takes part, and waits only for those who have begun: where a
//! thread sleeps still, or has no core, the caller does the work alone.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, TryLockError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::parallel;

/// How long a thread spins for more work before it sleeps: longer than the small ops between two products take.
const PATIENCE: Duration = Duration::from_micros(200);
/// Turns of a spin between two looks at the clock, or between two offers of the core to others.
const TURNS: usize = 64;

/// Runs `f` for each of `0..pieces`, by as many threads as rayon has: for work that comes often and takes microseconds.
/// Within rayon's own threads, or while another thread has the team, rayon does it.
pub(super) fn for_each(pieces: usize, f: impl Fn(usize) + Sync) {
    if pieces <= 1 || rayon::current_thread_index().is_some() {
        return parallel::for_each(pieces, &f);
    }
    static TEAM: OnceLock<&'static Team> = OnceLock::new();
    let team = TEAM.get_or_init(|| Team::start(rayon::current_num_threads() - 1));
    if !team.run(pieces, &f) {
        parallel::for_each(pieces, &f);
    }
}

/// What there is to do: `run(i)` for each of `0..pieces`.
#[derive(Clone, Copy)]
struct Job {
    run: *const (dyn Fn(usize) + Sync),
    pieces: usize,
}

/// Set in [`Team::gate`] while threads may join the job; the rest of it counts those that have.
const OPEN: usize = 1 << (usize::BITS - 1);

struct Team {
    members: OnceLock<Vec<Thread>>,
    asleep: Vec<AtomicBool>,
    /// Held by the thread whose job it is.
    leader: Mutex<()>,
    /// Goes up with every job.
    epoch: AtomicUsize,
    gate: AtomicUsize,
    job: UnsafeCell<Option<Job>>,
    /// The piece to be taken next.
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written by the leader alone, while the gate is shut and nobody has joined, and read by those who
// joined through the open gate; what it points to lives until the leader has shut the gate and all have left.
unsafe impl Sync for Team {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Team {}

impl Team {
    /// A team of so many threads beside the caller's: fewer where the system gives no more.
    fn start(members: usize) -> &'static Team {
        let team: &'static Team = Box::leak(Box::new(Team {
            members: OnceLock::new(),
            asleep: (0..members).map(|_| AtomicBool::new(false)).collect(),
            leader: Mutex::new(()),
            epoch: AtomicUsize::new(0),
            gate: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            panic: Mutex::new(None),
        }));
        let spawn = |i: usize| thread::Builder::new().name(format!("team {i}")).spawn(move || team.serve(i)).ok();
        let threads = (0..members).map_while(spawn).map(|handle| handle.thread().clone()).collect();
        team.members.set(threads).expect("set once");
        team
    }

    /// Does the job with all threads; false if another thread has the team.
    fn run(&self, pieces: usize, f: &(dyn Fn(usize) + Sync)) -> bool {
        let _leader = match self.leader.try_lock() {
            Ok(leader) => leader,
            // Whoever panicked had shut the gate before.
            Err(TryLockError::Poisoned(leader)) => leader.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        // A job whose leader panicked took no other's panic.
        *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // SAFETY: only the lifetime is cut; `Shut` waits, before `f` can end, for all who hold it.
        let run = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(f) };
        // SAFETY: the gate is shut and empty, since the last leader left it so: nobody reads.
        unsafe { *self.job.get() = Some(Job { run, pieces }) };
        self.next.store(0, Ordering::Relaxed);
        self.gate.store(OPEN, Ordering::Release);
        let shut = Shut(self);
        // Either this sees that a thread fell asleep, or that thread sees the new epoch: both are ordered.
        self.epoch.fetch_add(1, Ordering::SeqCst);
        for (member, asleep) in self.members.get().into_iter().flatten().zip(&self.asleep) {
            if asleep.load(Ordering::SeqCst) {
                member.unpark();
            }
        }
        self.take_pieces(Job { run, pieces });
        drop(shut);
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        true
    }

    fn take_pieces(&self, job: Job) {
        // SAFETY: it lives while the caller is counted by the gate, or leads.
        let run = unsafe { &*job.run };
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= job.pieces {
                return;
            }
            run(i);
        }
    }

    /// The life of a member.
    fn serve(&self, i: usize) {
        let mut seen = 0;
        loop {
            seen = self.wait(i, seen);
            let join = |gate: usize| (gate & OPEN != 0).then_some(gate + 1);
            if self.gate.fetch_update(Ordering::Acquire, Ordering::Relaxed, join).is_err() {
                continue;
            }
            // SAFETY: the gate was open, and is not left before the job is done.
            let job = unsafe { *self.job.get() }.expect("an open gate has a job");
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take_pieces(job))) {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    /// Until there is another job than that of the epoch `seen`.
    fn wait(&self, i: usize, seen: usize) -> usize {
        let mut since = Instant::now();
        loop {
            for _ in 0..TURNS {
                let epoch = self.epoch.load(Ordering::Acquire);
                if epoch != seen {
                    return epoch;
                }
                std::hint::spin_loop();
            }
            if since.elapsed() > PATIENCE {
                self.asleep[i].store(true, Ordering::SeqCst);
                while self.epoch.load(Ordering::SeqCst) == seen {
                    thread::park();
                }
                self.asleep[i].store(false, Ordering::SeqCst);
                since = Instant::now();
            }
        }
    }
}

/// Shuts the gate and waits for those inside, also if the leader's piece panics.
struct Shut<'a>(&'a Team);

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        self.0.gate.fetch_and(!OPEN, Ordering::Relaxed);
        let mut turns = 0;
        while self.0.gate.load(Ordering::Acquire) != 0 {
            turns += 1;
            // A member that has lost its core gets it back.
            if turns % TURNS == 0 { thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each piece ran.
    fn counts(team: &Team, pieces: usize) -> Vec<usize> {
        let counts: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
        let count = |i: usize| {
            counts[i].fetch_add(1, Ordering::Relaxed);
        };
        if !team.run(pieces, &count) {
            (0..pieces).for_each(count);
        }
        counts.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn every_piece_is_done_once() {
        let team = Team::start(3);
        for round in 0..300 {
            assert_eq!(counts(team, round % 23), vec![1; round % 23]);
            if round % 100 == 99 {
                // The members fall asleep, and are woken.
                thread::sleep(2 * PATIENCE);
            }
        }
    }

    #[test]
    fn callers_that_come_at_once_do_not_mix() {
        let team = Team::start(2);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..200).for_each(|round| assert_eq!(counts(team, round % 9), vec![1; round % 9])));
            }
        });
    }

    #[test]
    fn a_piece_may_have_pieces() {
        let done = AtomicUsize::new(0);
        for_each(5, |_| {
            for_each(7, |_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(done.into_inner(), 35);
    }

    /// Whoever has the piece: the caller or a member.
    #[test]
    fn a_panic_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::start(2);
        for bad in 0..40 {
            let run = || team.run(40, &|i| assert!(i != bad, "piece {i}"));
            let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("a piece panics");
            assert_eq!(*panic.downcast::<String>().expect("formatted"), format!("piece {bad}"));
            assert_eq!(counts(team, 9), [1; 9]);
        }
    }

    #[test]
    fn without_members_the_caller_does_all() {
        assert_eq!(counts(Team::start(0), 12), [1; 12]);
    }
}
