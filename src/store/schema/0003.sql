-- Every statement here is SQLite's and PostgreSQL's alike. Times are Unix milliseconds, sha256 is lower-case hex.
-- What runs without a version yet learn from, written before their first step. `run` stands in the version's manifest.
CREATE TABLE learning (
    sha256 TEXT NOT NULL,
    model TEXT NOT NULL,
    run TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (sha256, model, run)
);
CREATE INDEX learning_by_run ON learning (model, run);
