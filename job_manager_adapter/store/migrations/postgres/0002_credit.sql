-- Sums by enrolment come from this index alone; the body stays the one place where all of it stands.
ALTER TABLE receipts
    ADD COLUMN enrolment text COLLATE "C"
        GENERATED ALWAYS AS (body::jsonb #>> '{statement,enrolment}') STORED,
    ADD COLUMN accepted_at double precision
        GENERATED ALWAYS AS ((body::jsonb #>> '{statement,accepted_at}')::double precision) STORED,
    ADD COLUMN granted double precision
        GENERATED ALWAYS AS ((body::jsonb #>> '{statement,granted}')::double precision) STORED,
    ADD COLUMN cpu_seconds double precision
        GENERATED ALWAYS AS ((body::jsonb #>> '{statement,cpu_seconds}')::double precision) STORED;

CREATE INDEX receipts_credit ON receipts (enrolment, experiment COLLATE "C", accepted_at)
    INCLUDE (granted, cpu_seconds);
