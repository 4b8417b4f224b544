//! The record of a live task and the table of all of them.
//!
//! The table is never walked to decide something. It is paged by task number: numbers are handed out in order
//! of arrival, so live tasks lie close together, a lookup touches one small index, and a million records are
//! never moved to make room for the next.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::api::{ClassNo, PoolNo, SetNo, TaskNo, TaskSpec, Time};
use crate::fairness::{Entry, Flow, Need};
use crate::session::SessionSlot;
use crate::state::State;

/// What a task asks of a pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub class: ClassNo,
    pub flow: Flow,
    pub need: Need,
}

/// What is kept of a task between its admission and its end.
#[derive(Debug)]
pub(crate) struct Task {
    /// Who is charged.
    pub flow: Flow,
    pub class: ClassNo,
    /// Only reproducible replicas will do.
    pub strict: bool,
    /// The pool that it is bound to.
    pub pool: PoolNo,
    /// All pools that could serve it, best first.
    pub eligible: SmallVec<[PoolNo; 4]>,
    pub session: Option<SessionSlot>,
    /// The set of its first attempt: later ones stay within it.
    pub set: Option<SetNo>,
    /// Another replica of its set may go on in mid-stream.
    pub resumable: bool,
    /// Attempts so far, the open one included.
    pub attempts: u32,
    /// Input tokens that its first start is charged for.
    pub tokens_in: u32,
    /// Output tokens that were charged so far; what is decoded again is not.
    pub tokens_charged: u32,
    /// The output that the forecast reckons with.
    pub tokens_expected: u32,
    pub queued_at: Time,
    /// `None` for a recovered task too: it was accepted once and is not refused for time lost since.
    pub deadline: Option<Time>,
    /// The moment of the one timer that is valid for this task; older ones are void.
    pub watch: Time,
    pub state: State,
}

impl Task {
    pub fn new(spec: &TaskSpec, weight: u32, pool: PoolNo, now: Time) -> Self {
        Self {
            flow: Flow {
                tenant: spec.tenant,
                weight,
            },
            class: spec.class,
            strict: spec.strict || spec.strict_explicit,
            pool,
            eligible: SmallVec::from_slice(&spec.eligible),
            session: None,
            set: None,
            resumable: spec.resumable,
            attempts: 0,
            tokens_in: spec.tokens_in_estimate,
            tokens_charged: 0,
            tokens_expected: expected_tokens(spec),
            queued_at: now,
            deadline: spec.deadline.filter(|_| !spec.recovered),
            watch: Time(u64::MAX),
            state: State::Queued,
        }
    }

    pub fn need(&self) -> Need {
        Need {
            strict: self.strict,
            set: self.set,
        }
    }

    pub fn entry(&self, task: TaskNo) -> Entry {
        Entry {
            task,
            flow: self.flow,
            need: self.need(),
        }
    }

    pub fn claim(&self) -> Claim {
        Claim {
            class: self.class,
            flow: self.flow,
            need: self.need(),
        }
    }

    /// True until the first attempt: a task that was started is never ended for its deadline.
    pub fn is_fresh(&self) -> bool {
        self.attempts == 0
    }
}

/// The output that a forecast reckons with: what the client expects, else the most it allows.
pub(crate) fn expected_tokens(spec: &TaskSpec) -> u32 {
    spec.tokens_out_expected
        .map_or(spec.tokens_out_max, |expected| {
            expected.min(spec.tokens_out_max)
        })
}

const PAGE: u64 = 32;

#[derive(Debug, Default)]
struct Page {
    tasks: [Option<Box<Task>>; PAGE as usize],
    live: u8,
}

/// All live tasks by number.
#[derive(Debug, Default)]
pub(crate) struct TaskTable {
    pages: BTreeMap<u64, Box<Page>>,
    len: usize,
}

fn place(task: TaskNo) -> (u64, usize) {
    (task.0 / PAGE, (task.0 % PAGE) as usize)
}

impl TaskTable {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, task: TaskNo) -> Option<&Task> {
        let (page, at) = place(task);
        self.pages.get(&page)?.tasks[at].as_deref()
    }

    pub fn get_mut(&mut self, task: TaskNo) -> Option<&mut Task> {
        let (page, at) = place(task);
        self.pages.get_mut(&page)?.tasks[at].as_deref_mut()
    }

    /// The number must be unused; a record that is there already is replaced.
    pub fn insert(&mut self, no: TaskNo, task: Task) {
        let (page, at) = place(no);
        let page = self.pages.entry(page).or_default();
        if page.tasks[at].replace(Box::new(task)).is_none() {
            page.live += 1;
            self.len += 1;
        }
    }

    pub fn remove(&mut self, no: TaskNo) -> Option<Box<Task>> {
        let (number, at) = place(no);
        let page = self.pages.get_mut(&number)?;
        let task = page.tasks[at].take()?;
        page.live -= 1;
        self.len -= 1;
        if page.live == 0 {
            self.pages.remove(&number);
        }
        Some(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TenantNo;

    fn task(tenant: u32) -> Task {
        let spec = TaskSpec {
            task: TaskNo(0),
            tenant: TenantNo(tenant),
            class: ClassNo(0),
            session: None,
            eligible: vec![PoolNo(0)],
            strict: false,
            strict_explicit: false,
            tokens_in_estimate: 1,
            tokens_out_max: 8,
            tokens_out_expected: Some(99),
            deadline: None,
            resumable: false,
            recovered: false,
        };
        Task::new(&spec, 1, PoolNo(0), Time(0))
    }

    #[test]
    fn a_record_is_found_until_it_is_removed_and_leaves_no_page_behind() {
        let mut table = TaskTable::default();
        for no in 0..100 {
            table.insert(TaskNo(no), task(u32::try_from(no).unwrap()));
        }
        assert_eq!(table.len(), 100);
        assert_eq!(
            table.get(TaskNo(70)).map(|t| t.flow.tenant),
            Some(TenantNo(70))
        );
        for no in 0..100 {
            assert!(table.remove(TaskNo(no)).is_some());
            assert!(table.remove(TaskNo(no)).is_none());
        }
        assert_eq!(table.len(), 0);
        assert!(table.pages.is_empty());
    }

    #[test]
    fn a_record_is_small() {
        assert!(size_of::<Task>() <= 200, "{} bytes", size_of::<Task>());
    }

    #[test]
    fn nobody_expects_more_than_the_maximum() {
        assert_eq!(task(0).tokens_expected, 8);
    }
}
