-- Every statement here is SQLite's and PostgreSQL's alike. Times are Unix milliseconds, sha256 is lower-case hex.
CREATE TABLE predictions (
    id TEXT NOT NULL PRIMARY KEY,
    model TEXT NOT NULL,
    version BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    class BIGINT NOT NULL,
    probability DOUBLE PRECISION NOT NULL,
    at_ms BIGINT NOT NULL
);
CREATE INDEX predictions_by_image ON predictions (sha256, model);
CREATE INDEX predictions_by_time ON predictions (at_ms);

-- Which images have their bytes in the blob store.
CREATE TABLE images (
    sha256 TEXT NOT NULL PRIMARY KEY,
    bytes BIGINT NOT NULL,
    at_ms BIGINT NOT NULL
);

-- What each source says of each image. Two labels of one source are two rows: neither is lost.
CREATE TABLE labels (
    model TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    source TEXT NOT NULL,
    label BIGINT NOT NULL,
    prediction TEXT,
    confidence DOUBLE PRECISION,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (model, sha256, source, label)
);
CREATE INDEX labels_by_image ON labels (sha256);
CREATE INDEX labels_by_source ON labels (source, at_ms);

-- What a person decided of an image that sources disagree on; no label: not to be learnt from.
CREATE TABLE decisions (
    model TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    label BIGINT,
    source TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (model, sha256)
);

CREATE TABLE tombstones (
    sha256 TEXT NOT NULL PRIMARY KEY,
    at_ms BIGINT NOT NULL
);

CREATE TABLE learnt (
    sha256 TEXT NOT NULL,
    model TEXT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (sha256, model, version)
);
CREATE INDEX learnt_by_version ON learnt (model, version);

CREATE TABLE marks (
    name TEXT NOT NULL PRIMARY KEY,
    at_ms BIGINT NOT NULL
);

-- A label's state is read from the rows and never stored, so that it cannot depend on the order in which they came.
CREATE VIEW judged AS
SELECT l.model, l.sha256, l.source, l.label, l.confidence, l.at_ms,
    CASE
        WHEN d.sha256 IS NOT NULL AND d.label = l.label THEN 'accepted'
        WHEN d.sha256 IS NOT NULL THEN 'overruled'
        WHEN EXISTS (
            SELECT 1 FROM labels o WHERE o.model = l.model AND o.sha256 = l.sha256 AND o.label <> l.label
        ) THEN 'quarantined'
        ELSE 'accepted'
    END AS state
FROM labels l
LEFT JOIN decisions d ON d.model = l.model AND d.sha256 = l.sha256;
