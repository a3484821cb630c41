-- A ledger of schema 1, as the first version wrote it: keys `h` * 32 and `v` * 32.
PRAGMA application_id = 1114600036;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
BEGIN TRANSACTION;
CREATE TABLE answers (
	id TEXT NOT NULL,
	until_ns INTEGER NOT NULL,
	sealed BLOB NOT NULL,
	PRIMARY KEY (id)
)
 STRICT

;
INSERT INTO "answers" VALUES('c_1',2767225600123456789,X'6E6E6E6E6E6E6E6E6E6E6E6E27D7AA714990F7585D8030ED0408BB09F191B871BCCC2DD3729EE8F13A2EF97054526BD0768AF30EC51D334154EE80168AE8994389143B2FCAEF4D5839443F3BF121BCDEDE99C41A5B04E8C34140389FDC66DB80E6B03D664978A3BBF4257A0CADD57CA7C137C8DC9DFADC09B8AA886EB0413C43BF66BA6FEE6136D10AC1DD7541F04C8F2081D1A2F36B3823D95E2C7275E1427AF86518B42227DA');
CREATE TABLE entries (
	seq INTEGER NOT NULL,
	at_ns INTEGER NOT NULL,
	kind TEXT NOT NULL,
	call_seq INTEGER,
	id TEXT,
	run TEXT,
	agent TEXT,
	tool TEXT,
	method TEXT,
	scheme TEXT,
	host TEXT,
	port INTEGER,
	path TEXT,
	decision TEXT,
	code TEXT,
	rules TEXT,
	executed TEXT,
	status INTEGER,
	ruleset TEXT,
	calls INTEGER,
	outcome TEXT,
	duration_ns INTEGER,
	answer_bytes INTEGER,
	rest TEXT NOT NULL,
	prev BLOB NOT NULL,
	hash BLOB NOT NULL,
	PRIMARY KEY (seq)
)
 STRICT

;
INSERT INTO "entries" VALUES(1,1767225600123456789,'boot',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{"boot":"b_1","command":"borderpost serve","listen":"127.0.0.1:8080","pid":4711,"versions":{"borderpost":"0.1.0"}}',X'0000000000000000000000000000000000000000000000000000000000000000',X'923919D5071D4F61F86BB71B440ACA01EC481F8219FCE9E9061141E26ED20B78');
INSERT INTO "entries" VALUES(2,1767225600123456789,'ruleset',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{"digest":"5d41402a","files":["rules/a.yaml"],"mode":"enforce","problem":"","rules":3,"tools":2}',X'923919D5071D4F61F86BB71B440ACA01EC481F8219FCE9E9061141E26ED20B78',X'850A639ACCE21D066F2E69A868CBBEE1DBB490B590F6C7C00C5A479C6FE833C3');
INSERT INTO "entries" VALUES(3,1767225600123456789,'decision',3,'c_1','r_1','support','stripe.refund','POST','https','api.stripe.com',443,'/v1/refunds','allow',NULL,'["small-refunds"]','no',NULL,'5d41402a',1,NULL,NULL,NULL,'{"detail":"allowed by small-refunds","would":[{"rule":"big-refunds","code":"policy-denied","detail":"too much","field":"body.amount","actual":"6000","limit":"5000"}],"fingerprint":"abababababababababababababababababababababababababababababababab","facts":{"body.amount":500,"body.charge":"ch_1"},"changes":[{"guard":"dedupe","rule":"small-refunds","key":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","op":"claim","data":{"call":"c_1","n":null,"until_ns":1767225600123456790}}]}',X'850A639ACCE21D066F2E69A868CBBEE1DBB490B590F6C7C00C5A479C6FE833C3',X'4035566F1814EF89F59E7AA6B53B6D3F6A59D81CECAD4172920F523C671DED4D');
INSERT INTO "entries" VALUES(4,1767225600123456789,'outcome',3,'c_1',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,200,NULL,NULL,'done',12345678,512,'{"changes":[{"guard":"dedupe","rule":"small-refunds","key":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","op":"done","data":{}}],"stored":"23e97708591228de7e687c2d7f96d3570a59a5dffb8e22ee9c3590e342180017"}',X'4035566F1814EF89F59E7AA6B53B6D3F6A59D81CECAD4172920F523C671DED4D',X'BCC3995D3B95458FEBA29BB97252B91F02B7D35D13151EBAABB0C844D9320BCB');
INSERT INTO "entries" VALUES(5,1767225600123456789,'decision',5,'c_2','r_1','support','stripe.refund','DELETE','https','api.stripe.com',443,'/v1/refunds','deny','policy-denied','["no-deletes"]','no',403,'5d41402a',1,NULL,NULL,NULL,'{"detail":"Deleting is not permitted.","violations":[{"rule":"no-deletes","code":"policy-denied","detail":"Deleting is not permitted.","field":"","actual":"","limit":""}],"fingerprint":"abababababababababababababababababababababababababababababababab","facts":{"body.amount":500,"body.charge":"ch_1"}}',X'BCC3995D3B95458FEBA29BB97252B91F02B7D35D13151EBAABB0C844D9320BCB',X'C50AF8FF080C069B05F96ED60D840B4A644CB45418E5B20A6F1E8A0A9922F31E');
INSERT INTO "entries" VALUES(6,1767225600123456789,'decision',6,'c_3','r_1','support','stripe.refund','POST','https','api.stripe.com',443,'/v1/refunds','allow',NULL,'["small-refunds"]','no',NULL,'5d41402a',1,NULL,NULL,NULL,'{"detail":"allowed by small-refunds","fingerprint":"abababababababababababababababababababababababababababababababab","facts":{"body.amount":500,"body.charge":"ch_1"},"changes":[{"guard":"dedupe","rule":"small-refunds","key":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","op":"claim","data":{"call":"c_1","n":null,"until_ns":1767225600123456790}}]}',X'C50AF8FF080C069B05F96ED60D840B4A644CB45418E5B20A6F1E8A0A9922F31E',X'698E6050A72056AC3E71D4DBEF97F49839D7B758D8B920F12AC8B58A68C953A9');
INSERT INTO "entries" VALUES(7,1767225600123456789,'command',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{"by":"ada","changes":[],"data":{},"name":"shutdown"}',X'698E6050A72056AC3E71D4DBEF97F49839D7B758D8B920F12AC8B58A68C953A9',X'2E40B45E6E3E4A261C6F89507903EBC865F376981436016B363971739E090C7C');
CREATE TABLE entry_rules (
	rule TEXT NOT NULL,
	seq INTEGER NOT NULL,
	PRIMARY KEY (rule, seq),
	FOREIGN KEY(seq) REFERENCES entries (seq)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "entry_rules" VALUES('big-refunds',3);
INSERT INTO "entry_rules" VALUES('no-deletes',5);
INSERT INTO "entry_rules" VALUES('small-refunds',3);
INSERT INTO "entry_rules" VALUES('small-refunds',6);
CREATE TABLE meta (
	name TEXT NOT NULL,
	value TEXT NOT NULL,
	PRIMARY KEY (name)
)
 STRICT

;
INSERT INTO "meta" VALUES('hash_key','b09496daa89f4646');
INSERT INTO "meta" VALUES('vault_key','32c5a1c28a300bfc');
CREATE TABLE totals (
	decision TEXT NOT NULL,
	calls INTEGER NOT NULL,
	PRIMARY KEY (decision)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "totals" VALUES('allow',2);
INSERT INTO "totals" VALUES('deny',1);
CREATE INDEX entries_kind ON entries (kind, seq) WHERE call_seq IS NULL;
CREATE INDEX entries_tool ON entries (tool, seq) WHERE tool IS NOT NULL;
CREATE INDEX entries_at ON entries (at_ns);
CREATE INDEX entries_agent ON entries (agent, seq) WHERE agent IS NOT NULL;
CREATE INDEX entries_outcome ON entries (call_seq, seq) WHERE outcome IS NOT NULL;
CREATE INDEX entries_status ON entries (status, call_seq) WHERE status IS NOT NULL;
CREATE INDEX entries_run ON entries (run, seq, decision, calls) WHERE run IS NOT NULL;
CREATE INDEX entries_id ON entries (id) WHERE decision IS NOT NULL;
CREATE INDEX entries_decision ON entries (decision, seq, calls) WHERE decision IS NOT NULL;
CREATE INDEX entries_host ON entries (host, seq) WHERE host IS NOT NULL;
CREATE INDEX answers_until ON answers (until_ns);
CREATE TRIGGER entries_chain BEFORE INSERT ON entries
    WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM entries)
      OR NEW.prev IS NOT coalesce((SELECT hash FROM entries ORDER BY seq DESC LIMIT 1), zeroblob(32))
      OR length(NEW.hash) <> 32
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: an entry must follow the last one'); END;
CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: an entry cannot be changed'); END;
CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: an entry cannot be deleted'); END;
CREATE TRIGGER entry_rules_no_update BEFORE UPDATE ON entry_rules
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: an entry cannot be changed'); END;
CREATE TRIGGER entry_rules_no_delete BEFORE DELETE ON entry_rules
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: an entry cannot be deleted'); END;
CREATE VIEW calls AS
    SELECT d.seq, d.id, strftime('%Y-%m-%dT%H:%M:%S', d.at_ns / 1000000000, 'unixepoch') || printf('.%03dZ', d.at_ns / 1000000 % 1000) AS at, d.at_ns, d.run, d.agent, d.tool, d.method, d.scheme, d.host, d.port,
           d.path, d.decision, d.code, d.rules, (SELECT json_group_array(value ->> '$.rule') FROM json_each(d.rest, '$.would')) AS would, d.rest ->> '$.detail' AS detail,

    CASE o.outcome
    WHEN 'done' THEN 'yes' WHEN 'not_executed' THEN 'no' WHEN 'unknown' THEN 'unknown'
    ELSE CASE d.decision WHEN 'allow' THEN 'unknown' ELSE d.executed END END
 AS executed, o.outcome, coalesce(o.status, d.status) AS status,
           round(o.duration_ns / 1e6, 3) AS duration_ms, o.duration_ns, o.answer_bytes, o.rest ->> '$.error' AS error,
           d.calls, d.ruleset
    FROM entries d LEFT JOIN entries o ON o.seq = (SELECT max(x.seq) FROM entries x WHERE x.call_seq = d.seq AND x.outcome IS NOT NULL)
    WHERE d.decision IS NOT NULL;
CREATE VIEW decisions AS
    SELECT d.seq, d.id, strftime('%Y-%m-%dT%H:%M:%S', d.at_ns / 1000000000, 'unixepoch') || printf('.%03dZ', d.at_ns / 1000000 % 1000) AS at, d.at_ns, d.run, d.agent, d.tool, d.method, d.scheme, d.host, d.port,
           d.path, d.decision, d.code, d.rules, d.rest ->> '$.detail' AS detail,
           d.rest -> '$.violations' AS violations, d.rest -> '$.would' AS would, d.rest -> '$.facts' AS facts,
           d.rest ->> '$.replay_of' AS replay_of, d.rest ->> '$.fingerprint' AS fingerprint,
           round(coalesce(d.rest ->> '$.waited_ns', 0) / 1e6, 3) AS waited_ms, d.calls, d.ruleset
    FROM entries d
    WHERE d.decision IS NOT NULL;
CREATE VIEW runs AS
    SELECT d.run, min(d.agent) AS agent, strftime('%Y-%m-%dT%H:%M:%S', min(d.at_ns) / 1000000000, 'unixepoch') || printf('.%03dZ', min(d.at_ns) / 1000000 % 1000) AS first_at, strftime('%Y-%m-%dT%H:%M:%S', max(d.at_ns) / 1000000000, 'unixepoch') || printf('.%03dZ', max(d.at_ns) / 1000000 % 1000) AS last_at,
           min(d.at_ns) AS first_ns, max(d.at_ns) AS last_ns, sum(d.calls) AS calls, sum(d.calls * (d.decision = 'allow')) AS allowed, sum(d.calls * (d.decision = 'deny')) AS denied, sum(d.calls * (d.decision = 'throttle')) AS throttled, sum(d.calls * (d.decision = 'replay')) AS replayed, sum(d.calls * (d.decision = 'hold')) AS held
    FROM entries d
    WHERE d.run IS NOT NULL
    GROUP BY d.run;
COMMIT;
