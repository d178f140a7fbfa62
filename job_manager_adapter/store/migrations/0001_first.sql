CREATE TABLE classes (
    id INTEGER PRIMARY KEY,
    experiment TEXT NOT NULL,
    requirements TEXT NOT NULL,
    UNIQUE (experiment, requirements)
) STRICT;

CREATE TABLE submissions (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    batch TEXT NOT NULL,
    jobs TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;

-- Small rows that change often; what a job asks for stands in specs.
CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    batch TEXT NOT NULL,
    experiment TEXT NOT NULL,
    class INTEGER NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    priority INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    charged INTEGER NOT NULL DEFAULT 0,
    uncharged INTEGER NOT NULL DEFAULT 0,
    pilot TEXT,
    started_at REAL,
    failure_class TEXT,
    message TEXT NOT NULL DEFAULT '',
    pause_seconds REAL NOT NULL,
    reference_cpu_seconds REAL,
    submitted_at REAL NOT NULL,
    changed_at REAL NOT NULL,
    labels TEXT NOT NULL,
    upstream TEXT,
    told TEXT
) STRICT;

-- state is in it so that counting needs no look at the rows.
CREATE INDEX jobs_waiting ON jobs (class, priority DESC, sequence, state) WHERE state = 'waiting';
CREATE INDEX jobs_open ON jobs (pilot) WHERE state IN ('leased', 'running');
CREATE INDEX jobs_batch ON jobs (batch);
CREATE INDEX jobs_adopted ON jobs (experiment)
    WHERE upstream IS NOT NULL AND state IN ('waiting', 'leased', 'running');
CREATE INDEX jobs_upstream ON jobs (experiment) WHERE upstream IS NOT NULL AND told IS NOT state;

CREATE TABLE specs (
    sequence INTEGER PRIMARY KEY,
    spec BLOB NOT NULL
) STRICT;

CREATE TABLE attempts (
    job INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    pilot TEXT NOT NULL,
    leased_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    outcome TEXT,
    failure_class TEXT,
    charged INTEGER NOT NULL DEFAULT 0,
    accepted INTEGER NOT NULL DEFAULT 0,
    exit_code INTEGER,
    signal INTEGER,
    message TEXT NOT NULL DEFAULT '',
    usage TEXT,
    outputs TEXT,
    granted REAL,
    late TEXT,
    PRIMARY KEY (job, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE enrolments (
    id TEXT PRIMARY KEY,
    secret_sha256 TEXT NOT NULL UNIQUE,
    label TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    launchers_allowed INTEGER NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE hosts (
    id TEXT PRIMARY KEY,
    launcher_key TEXT NOT NULL UNIQUE,
    enrolment TEXT NOT NULL,
    label TEXT NOT NULL,
    banned INTEGER NOT NULL DEFAULT 0,
    ban_reason TEXT NOT NULL DEFAULT '',
    boots INTEGER NOT NULL DEFAULT 0,
    jobs_succeeded INTEGER NOT NULL DEFAULT 0,
    granted REAL NOT NULL DEFAULT 0,
    seen_at REAL
) STRICT, WITHOUT ROWID;

-- A secret and the launchers that it is bound to.
CREATE TABLE bindings (
    enrolment TEXT NOT NULL,
    host TEXT NOT NULL,
    boots INTEGER NOT NULL,
    PRIMARY KEY (enrolment, host)
) STRICT, WITHOUT ROWID;

CREATE TABLE pilots (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    enrolment TEXT NOT NULL,
    key TEXT NOT NULL,
    capabilities TEXT NOT NULL,
    enrolled_at REAL NOT NULL,
    seen_at REAL,
    retired INTEGER NOT NULL DEFAULT 0,
    draining INTEGER NOT NULL DEFAULT 0,
    paused INTEGER NOT NULL DEFAULT 0,
    jobs_succeeded INTEGER NOT NULL DEFAULT 0,
    jobs_failed INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX pilots_host ON pilots (host);

CREATE TABLE receipts (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    job TEXT NOT NULL UNIQUE,
    experiment TEXT NOT NULL,
    launcher_key TEXT NOT NULL,
    kept INTEGER NOT NULL DEFAULT 0,
    body TEXT NOT NULL
) STRICT;

CREATE INDEX receipts_due ON receipts (launcher_key) WHERE kept = 0;

CREATE TABLE ledger (
    experiment TEXT PRIMARY KEY,
    granted REAL NOT NULL,
    receipts INTEGER NOT NULL,
    cpu_seconds REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    experiment TEXT,
    label TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE journal (
    last INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
