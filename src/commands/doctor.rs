//! `sawmill doctor`: what is wrong, and what to do about it.

use clap::Args;
use control::{AuditReport, Check, Verdict};

use super::Context;
use crate::{exit::Exit, output};

/// `sawmill doctor`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exits 1 when something failed or does not add up; warnings alone are no failure.")]
pub struct DoctorArgs {
    /// Check that no subtask was lost or counted twice, instead of the parts
    #[arg(long)]
    audit: bool,
}

/// Runs the command.
///
/// # Errors
/// With `--audit` what can't be reached; without it that is a finding.
pub async fn run(args: DoctorArgs, context: &Context) -> anyhow::Result<Exit> {
    if args.audit {
        return audit(context).await;
    }
    context.needs_stores()?;
    let settings = &context.settings;
    let checks = control::examine(&settings.coordination(), &settings.storage()).await;
    if context.json() {
        output::json(&checks)?;
    } else {
        checks.iter().try_for_each(told)?;
    }
    let failed = checks.iter().any(|check| check.verdict == Verdict::Failed);
    Ok(if failed { Exit::Failure } else { Exit::Success })
}

fn told(check: &Check) -> anyhow::Result<()> {
    let word = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "WARNING",
        Verdict::Failed => "FAILED",
    };
    output::line(format_args!("{word:<9}{:<18}{}", check.name, check.found))?;
    match &check.advice {
        Some(advice) => output::line(format_args!("{:27}-> {advice}", "")),
        None => Ok(()),
    }
}

async fn audit(context: &Context) -> anyhow::Result<Exit> {
    let report = context.control().await?.audit().await?;
    if context.json() {
        output::json(&report)?;
    } else {
        tell(&report)?;
    }
    Ok(if report.clean {
        Exit::Success
    } else {
        Exit::Failure
    })
}

fn tell(report: &AuditReport) -> anyhow::Result<()> {
    let total = &report.total;
    let row = |job: String, state: String, tally: &model::audit::Tally| {
        let numbers = [
            tally.submitted,
            tally.recorded,
            tally.failed,
            tally.cancelled,
            tally.waiting,
            tally.in_flight,
        ];
        [job, state].into_iter().chain(numbers.map(output::grouped))
    };
    let headings = [
        "JOB",
        "STATE",
        ">SUBMITTED",
        ">RECORDED",
        ">FAILED",
        ">CANCELLED",
        ">WAITING",
        ">IN FLIGHT",
    ];
    let rows = report
        .of_jobs
        .iter()
        .map(|job| row(job.job.to_string(), job.state.to_string(), &job.tally));
    let all = row(output::counted(report.jobs as u64, "job"), String::new(), total);
    output::table(&headings, rows.chain([all]))?;
    for strange in &report.strange {
        output::line(format_args!("skipped: {strange}"))?;
    }
    for finding in &report.findings {
        output::line(format_args!("BROKEN: {finding}"))?;
    }
    output::line(match report.findings.len() {
        0 => "every subtask is accounted for exactly once".to_string(),
        count => output::counted(count as u64, "finding"),
    })
}
