-- Every statement here is SQLite's and PostgreSQL's alike.
-- The id of the API key that a label or a decision came with; null where none was needed. A source is whoever the caller says it
-- is; the key is who the caller is.
ALTER TABLE labels ADD COLUMN api_key TEXT;
ALTER TABLE decisions ADD COLUMN api_key TEXT;
CREATE INDEX labels_by_key ON labels (api_key, at_ms);

DROP VIEW judged;
CREATE VIEW judged AS
SELECT l.model, l.sha256, l.source, l.label, l.confidence, l.at_ms, l.api_key,
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
