-- One row for each drain that was asked for: of a pilot, of a host (its id), of the fleet ('*').
CREATE TABLE drains (
    scope TEXT PRIMARY KEY,
    at REAL NOT NULL,
    until REAL
) STRICT, WITHOUT ROWID;

INSERT INTO drains (scope, at) SELECT id, enrolled_at FROM pilots WHERE draining AND NOT retired;

ALTER TABLE pilots DROP COLUMN draining;

CREATE INDEX submissions_at ON submissions (at);
