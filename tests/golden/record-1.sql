BEGIN TRANSACTION;
CREATE TABLE alarm (
    run INTEGER NOT NULL, alarm INTEGER NOT NULL, cycle INTEGER NOT NULL, batch INTEGER REFERENCES batch,
    kind TEXT NOT NULL, say TEXT NOT NULL, device TEXT NOT NULL, tag TEXT NOT NULL,
    raised INTEGER NOT NULL, cleared INTEGER, acknowledged INTEGER, who TEXT) STRICT;
INSERT INTO "alarm" VALUES(1795514400000000000,1,1400,1,'interlock','{"en":"Scale overloaded","fr":"Balance en surcharge","ar":"الميزان محمّل أكثر من اللازم"}','conveyor','conveyor.weight',1795515334000000000,1795515339000000000,1795515339000000000,'yusuf');
CREATE TABLE batch (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, run INTEGER NOT NULL, cycle INTEGER NOT NULL, cell TEXT NOT NULL,
    recipe TEXT NOT NULL, hash TEXT NOT NULL, parameters TEXT NOT NULL, who TEXT NOT NULL, state TEXT NOT NULL,
    started INTEGER NOT NULL, ended INTEGER, reset INTEGER) STRICT;
INSERT INTO "batch" VALUES(1,'20261124-101530',1795514400000000000,1000,'bottling','rinse-and-fill','d75dbf82d5d33c3c532ffb2f0bbbb2de5b21f60677cfbfec7f46767cd7b1261b','[{"name":"volume","value":20.0,"unit":"L"},{"name":"label","value":"été","unit":""}]','amira','running',1795515330000000000,NULL,NULL);
CREATE TABLE question (
    batch INTEGER NOT NULL REFERENCES batch, run INTEGER NOT NULL, cycle INTEGER NOT NULL, prompt INTEGER NOT NULL,
    step INTEGER NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, say TEXT NOT NULL, unit TEXT NOT NULL,
    asked INTEGER NOT NULL, answered INTEGER, value TEXT, who TEXT) STRICT;
CREATE TABLE recipe (hash TEXT PRIMARY KEY, name TEXT NOT NULL, text TEXT NOT NULL) STRICT;
INSERT INTO "recipe" VALUES('d75dbf82d5d33c3c532ffb2f0bbbb2de5b21f60677cfbfec7f46767cd7b1261b','rinse-and-fill','recipe: rinse-and-fill
# agité à 120 rpm
');
CREATE TABLE recorded (
    batch INTEGER NOT NULL REFERENCES batch, run INTEGER NOT NULL, cycle INTEGER NOT NULL, time INTEGER NOT NULL,
    step INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, unit TEXT NOT NULL) STRICT;
CREATE TABLE run (
    run INTEGER PRIMARY KEY, cell TEXT NOT NULL, scan_ns INTEGER NOT NULL, edge TEXT NOT NULL,
    committed INTEGER NOT NULL) STRICT;
INSERT INTO "run" VALUES(1795514400000000000,'bottling',10000000,'0.1.0',8);
CREATE TABLE state_change (
    batch INTEGER NOT NULL REFERENCES batch, run INTEGER NOT NULL, cycle INTEGER NOT NULL, time INTEGER NOT NULL,
    before TEXT NOT NULL, state TEXT NOT NULL, cause TEXT NOT NULL, who TEXT NOT NULL) STRICT;
INSERT INTO "state_change" VALUES(1,1795514400000000000,1000,1795515330000000000,'idle','running','start by amira','amira');
INSERT INTO "state_change" VALUES(1,1795514400000000000,1400,1795515334000000000,'running','holding','Scale overloaded','interlock');
INSERT INTO "state_change" VALUES(1,1795514400000000000,1450,1795515334500000000,'holding','held','Scale overloaded','interlock');
INSERT INTO "state_change" VALUES(1,1795514400000000000,2000,1795515340000000000,'held','restarting','restart by yusuf','yusuf');
INSERT INTO "state_change" VALUES(1,1795514400000000000,2010,1795515340100000000,'restarting','running','the plant is as it was','edge');
CREATE TABLE step (
    batch INTEGER NOT NULL REFERENCES batch, run INTEGER NOT NULL, cycle INTEGER NOT NULL, step INTEGER NOT NULL,
    name TEXT NOT NULL, branch TEXT NOT NULL, started INTEGER NOT NULL, ended INTEGER, how TEXT,
    duration_ns INTEGER, active_ns INTEGER) STRICT;
INSERT INTO "step" VALUES(1,1795514400000000000,1000,0,'Fill','',1795515330000000000,1795515346250000000,'done',16250000000,10250000000);
INSERT INTO "step" VALUES(1,1795514400000000000,2625,2,'wait','stir',1795515346250000000,NULL,NULL,NULL,NULL);
CREATE TABLE tag_set (
    run INTEGER NOT NULL, cycle INTEGER NOT NULL, time INTEGER NOT NULL, tag TEXT NOT NULL, value TEXT NOT NULL,
    who TEXT NOT NULL) STRICT;
CREATE TABLE unfinished (batch TEXT PRIMARY KEY, state BLOB NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO "unfinished" VALUES('20261124-101530',X'7374617465206F662032303236313132342D3130313533302061742038');
CREATE INDEX batch_id ON batch (id);
CREATE INDEX state_change_batch ON state_change (batch);
CREATE INDEX step_batch ON step (batch, step);
CREATE INDEX recorded_batch ON recorded (batch);
CREATE INDEX question_batch ON question (batch, prompt);
CREATE INDEX alarm_number ON alarm (run, alarm);
CREATE INDEX alarm_batch ON alarm (batch);
COMMIT;
PRAGMA user_version = 1;
