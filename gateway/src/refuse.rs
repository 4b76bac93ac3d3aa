//! What depends on more than the method that is called: the rules of the methods are [`api::rights`], and have been asked before.

use api::{rights::Needs, transport};
use model::Job;
use pki::{Managed, Peer};
use tonic::{Request, Status};

/// Who asks.
pub(crate) fn asker<T>(request: &Request<T>) -> Peer {
    transport::peer(request)
}

/// Commands besides need a right of their own.
///
/// # Errors
/// PERMISSION_DENIED.
pub(crate) fn may_exec(peer: &Peer) -> Result<(), Status> {
    Needs::Exec.check(peer, "submit commands")
}

/// Naming files that the cluster is to read is for those who could read them by a command as well.
///
/// # Errors
/// PERMISSION_DENIED.
pub(crate) fn may_read_files(peer: &Peer) -> Result<(), Status> {
    Needs::Exec.check(peer, "name files that the cluster is to read")
}

/// Writing answers into a collection, which may replace that of somebody else.
///
/// # Errors
/// PERMISSION_DENIED.
pub(crate) fn may_fill_collections(peer: &Peer) -> Result<(), Status> {
    Needs::Manage(Managed::Views).check(peer, "write the answer into a collection")
}

/// Cancelling is for who submitted the job. One of which nobody knows that is for those who may manage all jobs.
///
/// # Errors
/// PERMISSION_DENIED.
pub(crate) fn may_cancel(peer: &Peer, job: &Job) -> Result<(), Status> {
    let who = peer.to_string();
    match &job.submitted_by {
        Some(submitter) if *submitter == who => Ok(()),
        submitter => {
            let whose = submitter.as_deref().unwrap_or("nobody who is known");
            Needs::Manage(Managed::Jobs)
                .check(peer, format_args!("cancel job {}, which is of {whose}", job.id))
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{JobSpec, Name, Parts, Processor, parts::Source};

    use super::*;

    fn peer(uri: &str) -> Peer {
        Peer::from_uri(&format!("sawmill://{uri}")).unwrap()
    }

    #[test]
    fn a_job_is_cancelled_by_whose_it_is_and_by_who_manages_jobs() {
        let parts = Parts::whole(vec![Source::default()]).unwrap();
        let spec = JobSpec::new(Name::new("a").unwrap(), Processor::Noop);
        let of = |submitted_by: Option<&str>| Job {
            submitted_by: submitted_by.map(str::to_string),
            ..Job::new(control::new_job_id(), spec.clone(), parts.clone(), 0)
        };
        let cases = [
            ("user/anna?queue=default", Some("user anna"), true),
            // Also one whose certificate has lost the queue.
            ("user/anna", Some("user anna"), true),
            ("user/anna?queue=*&may-exec", Some("user ann"), false),
            ("user/anna?queue=*&may-exec", Some("local anna"), false),
            ("user/anna?queue=*&may-manage=datasets", None, false),
            ("user/anna?may-manage=jobs", Some("user ben"), true),
            ("user/anna?may-manage=jobs", None, true),
            ("admin/root", None, true),
            ("agent/anna", Some("user anna"), false),
        ];
        for (who, submitter, may) in cases {
            let answered = may_cancel(&peer(who), &of(submitter));
            assert_eq!(answered.is_ok(), may, "{who}: {submitter:?}");
        }
    }

    #[test]
    fn collections_and_files_take_rights_of_their_own() {
        let (plain, all) = (
            peer("user/anna?queue=*"),
            peer("user/ben?may-exec&may-manage=views"),
        );
        for check in [may_exec, may_read_files, may_fill_collections] {
            let refused = check(&plain).unwrap_err();
            assert!(refused.message().contains("--may-"), "{refused}");
            assert!(check(&all).is_ok());
        }
    }
}
