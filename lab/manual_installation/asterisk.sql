-- The database that an administrator makes by hand: fewer and narrower columns than the exchange needs, no key, and a
-- table that belongs to postgres. Then calls of an earlier year.
CREATE USER asterisk WITH ENCRYPTED PASSWORD 'Obelix' CREATEDB;
CREATE DATABASE asterisk OWNER = asterisk;
\c asterisk
CREATE TABLE cdr (
    calldate timestamp NOT NULL,
    clid varchar(80) NOT NULL,
    src varchar(80) NOT NULL,
    dst varchar(80) NOT NULL,
    dcontext varchar(80) NOT NULL,
    channel varchar(80) NOT NULL,
    dstchannel varchar(80) NOT NULL,
    lastapp varchar(80) NOT NULL,
    lastdata varchar(80) NOT NULL,
    duration int NOT NULL,
    billsec int NOT NULL,
    disposition varchar(45) NOT NULL,
    amaflags int NOT NULL,
    accountcode varchar(20) NOT NULL,
    uniqueid varchar(150) NOT NULL,
    userfield varchar(255) NOT NULL,
    peeraccount varchar(20) NOT NULL,
    linkedid varchar(150) NOT NULL,
    sequence int NOT NULL
);
GRANT ALL ON ALL TABLES IN SCHEMA public TO asterisk;
INSERT INTO cdr VALUES
    ('2021-03-11 17:00:01', '"Recepción Ñandú" <6001>', '6001', '6002', 'from-internal', 'PJSIP/6001-00000000',
     'PJSIP/6002-00000001', 'Dial', 'PJSIP/6002,30', 42, 40, 'ANSWERED', 3, repeat('a', 20), '1615478401.0', '', '',
     '1615478401.0', 0),
    ('2021-03-11 17:05:00', '"6002" <6002>', '6002', '6001', 'from-internal', 'PJSIP/6002-00000002', '', 'VoiceMail',
     '6001@from-internal,u', 55, 20, 'ANSWERED', 3, '', '1615478700.2', '', '', '1615478700.2', 2),
    ('2021-04-15 10:00:00', '"6003" <6003>', '6003', '8001', 'from-internal', 'PJSIP/6003-00000009', '', 'Queue',
     'ColaUno', 9, 0, 'NO ANSWER', 3, '', '1618480800.9', '', '', '1618480800.9', 9);
