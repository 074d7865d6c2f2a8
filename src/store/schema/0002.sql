-- Every statement here is SQLite's and PostgreSQL's alike. Times are Unix milliseconds, switches 0 or 1.
CREATE TABLE jobs (
    id BIGINT NOT NULL PRIMARY KEY,
    model TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    cause TEXT NOT NULL,
    idempotency TEXT UNIQUE,
    created_ms BIGINT NOT NULL,
    started_ms BIGINT,
    ended_ms BIGINT,
    -- How often it was taken, and how often whoever had taken it died.
    attempt BIGINT NOT NULL,
    losses BIGINT NOT NULL,
    -- What was asked of it while it runs.
    wish TEXT,
    reason TEXT,
    version BIGINT,
    promoted BIGINT,
    phase TEXT,
    epoch BIGINT,
    epochs BIGINT,
    loss DOUBLE PRECISION,
    accuracy DOUBLE PRECISION,
    eta_seconds DOUBLE PRECISION
);
CREATE INDEX jobs_by_model ON jobs (model, id);
-- Whatever else happens, two jobs of one model never wait or run at once.
CREATE UNIQUE INDEX active_job ON jobs (model) WHERE state IN ('queued', 'running');

-- What a job told, numbered from 1; each line is a JSON object.
CREATE TABLE job_events (
    job BIGINT NOT NULL,
    number BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    line TEXT NOT NULL,
    PRIMARY KEY (job, number)
);

-- Who runs the job of a model, and until when nobody else may.
CREATE TABLE leases (
    model TEXT NOT NULL PRIMARY KEY,
    job BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    holder TEXT NOT NULL,
    heartbeat_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);
