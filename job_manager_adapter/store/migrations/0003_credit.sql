-- Sums by enrolment come from this index alone; the body stays the one place where all of it stands.
ALTER TABLE receipts ADD COLUMN enrolment TEXT AS (json_extract(body, '$.statement.enrolment'));
ALTER TABLE receipts ADD COLUMN accepted_at REAL AS (json_extract(body, '$.statement.accepted_at'));
ALTER TABLE receipts ADD COLUMN granted REAL AS (json_extract(body, '$.statement.granted'));
ALTER TABLE receipts ADD COLUMN cpu_seconds REAL AS (json_extract(body, '$.statement.cpu_seconds'));

CREATE INDEX receipts_credit ON receipts (enrolment, experiment, accepted_at, granted, cpu_seconds);
