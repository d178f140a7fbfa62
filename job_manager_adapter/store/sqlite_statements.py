"""The statements of a job's life. Each does a whole set; see sqlite_sets."""

from job_manager_adapter.store.sqlite_sets import statement

INSERT_JOBS = statement(
    """
    INSERT INTO jobs (sequence, id, batch, experiment, class, name, priority, max_attempts,
        pause_seconds, reference_cpu_seconds, submitted_at, changed_at, labels, upstream)
    SELECT sequence, id, batch, experiment, class, name, priority, max_attempts, pause_seconds,
        reference_cpu_seconds, at, at, labels, upstream FROM e""",
    "sequence id batch experiment class name priority max_attempts pause_seconds"
    " reference_cpu_seconds at labels upstream",
)
INSERT_SPECS = statement("INSERT INTO specs SELECT * FROM e", "sequence spec")
NEXT = """
    SELECT json_group_array(json_array(sequence, id, attempt + 1, priority, pause_seconds,
        reference_cpu_seconds, CAST(spec AS TEXT)))
    FROM (
        SELECT * FROM jobs JOIN specs USING (sequence)
        WHERE state = 'waiting' AND class = ? ORDER BY priority DESC, sequence LIMIT ?
    )"""
LEASE = statement(
    """
    UPDATE jobs SET state = 'leased', attempt = e.attempt, pilot = e.pilot, started_at = NULL,
        changed_at = e.at
    FROM e WHERE jobs.sequence = e.sequence""",
    "sequence attempt pilot at",
)
INSERT_ATTEMPTS = statement(
    """
    INSERT INTO attempts (job, attempt, pilot, leased_at) SELECT job, attempt, pilot, at
    FROM e""",
    "job attempt pilot at",
)
STANDING = statement(
    """
    SELECT json_group_array(json_array(e.ord, j.sequence, j.experiment, j.class, j.priority,
        j.state, j.attempt, j.max_attempts, j.charged, j.uncharged, j.started_at, a.pilot,
        a.ended_at, a.accepted))
    FROM e CROSS JOIN jobs j ON j.id = e.id
    CROSS JOIN attempts a ON a.job = j.sequence AND a.attempt = e.attempt""",
    "ord id attempt",
)
END_JOBS = statement(
    """
    UPDATE jobs SET state = e.state, charged = jobs.charged + e.charged,
        uncharged = uncharged + NOT e.charged, pilot = NULL, failure_class = e.failure_class,
        message = e.message, changed_at = e.at
    FROM e WHERE jobs.sequence = e.sequence""",
    "sequence state charged failure_class message at",
)
END_ATTEMPTS = statement(
    """
    UPDATE attempts SET started_at = e.started_at, ended_at = e.at, outcome = e.outcome,
        failure_class = e.failure_class, charged = e.charged, accepted = e.accepted,
        exit_code = e.exit_code, signal = e.signal, message = e.message, usage = e.usage,
        outputs = e.outputs, granted = e.granted
    FROM e WHERE attempts.job = e.job AND attempts.attempt = e.attempt""",
    "job attempt started_at at outcome failure_class charged accepted exit_code signal message"
    " usage outputs granted",
)
LATE = "UPDATE attempts SET late = ? WHERE job = ? AND attempt = ? AND late IS NULL"
INSERT_RECEIPTS = statement(
    """
    INSERT INTO receipts (id, job, experiment, launcher_key, body)
    SELECT id, job, experiment, launcher_key, body FROM e""",
    "id job experiment launcher_key body",
)
RECEIPTS_KEPT = statement(
    """
    UPDATE receipts SET kept = 1
    FROM e WHERE launcher_key = e.launcher AND receipts.id = e.id AND kept = 0""",
    "launcher id",
)
LEDGER = """
    INSERT INTO ledger (experiment, granted, receipts, cpu_seconds) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET granted = granted + excluded.granted,
        receipts = receipts + excluded.receipts, cpu_seconds = cpu_seconds + excluded.cpu_seconds"""
HOST_CREDIT = statement(
    """
    UPDATE hosts SET jobs_succeeded = jobs_succeeded + e.jobs, granted = hosts.granted + e.granted
    FROM e WHERE hosts.launcher_key = e.launcher_key""",
    "launcher_key jobs granted",
)
PILOT_COUNTS = statement(
    """
    UPDATE pilots SET jobs_succeeded = jobs_succeeded + e.succeeded,
        jobs_failed = jobs_failed + e.failed
    FROM e WHERE pilots.id = e.id""",
    "id succeeded failed",
)
