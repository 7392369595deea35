-- The view calls: one row for each call. A call is what one phone began: the records of one linkedid. The exception is
-- an agent's login, whose linkedid Asterisk gives to the calls that the agent accepts: each of those is its own call.
-- The first record of a call is looked up by time, the others by their keys, so that a day costs a day. @table@ is the
-- table of records; regular expressions instead of LIKE, since percent signs are taken.
SELECT f.uniqueid AS linkedid, f.calldate AS at, f.src AS caller, f.dst AS dialled,
  concat_ws(', ', c.menu, c.forward, c.queue, c.conference, c.transfer, c.voicemail) AS through,
  c.people[1] AS answered_by,
  NULLIF(c.people[array_length(c.people, 1)], c.people[1]) AS transferred_to,
  CASE WHEN c.people IS NOT NULL THEN 'ANSWERED' WHEN c.conference IS NOT NULL THEN 'CONFERENCE'
    WHEN c.voicemail IS NOT NULL THEN 'VOICEMAIL' WHEN c.served IS NOT NULL THEN 'SERVICE'
    WHEN c.queue IS NOT NULL THEN 'ABANDONED' ELSE c.disposition END AS result,
  greatest(0, round(extract(epoch FROM COALESCE(t.talk, c.recording, c.served, c.ended) - f.calldate)))::int AS waiting,
  greatest(0, round(extract(epoch FROM c.ended - t.talk)))::int AS talking,
  c.records
FROM @table@ f
CROSS JOIN LATERAL (
  SELECT count(*)::int AS records, greatest(max(r.ended), to_timestamp(max(r.released)) AT TIME ZONE 'UTC') AS ended,
    array_agg(r.person ORDER BY r.answered, r.sequence) FILTER (WHERE r.person <> '') AS people,
    min(r.answered) FILTER (WHERE r.person <> '') AS person,
    min(r.answered) FILTER (WHERE r.lastapp = 'ConfBridge') AS meeting,
    min(r.answered) FILTER (WHERE r.lastapp = 'VoiceMail') AS recording,
    min(r.answered) FILTER (WHERE r.disposition = 'ANSWERED' AND r.channel ~ '^PJSIP/') AS served,
    to_timestamp(min(r.connected)) AT TIME ZONE 'UTC' AS connected,
    min('menu ' || r.dst) FILTER (WHERE r.dcontext IN ('call-centres', 'department')) AS menu,
    min('forward') FILTER (
      WHERE r.uniqueid = f.uniqueid AND r.dst = f.dst AND r.lastapp = 'Dial' AND r.dcontext NOT IN ('call-centres', 'department')
      AND r.phone <> f.dst AND (r.sequence = f.sequence OR f.disposition <> 'ANSWERED')) AS forward,
    min('queue ' || split_part(r.lastdata, ',', 1)) FILTER (WHERE r.lastapp = 'Queue') AS queue,
    min('conference ' || split_part(r.lastdata, ',', 1)) FILTER (WHERE r.lastapp = 'ConfBridge') AS conference,
    CASE WHEN count(DISTINCT r.person) > 1
      OR bool_or(r.channel ~ '^PJSIP/' AND r.dst NOT IN ('', f.dst)) THEN 'transfer' END AS transfer,
    min('voicemail ' || split_part(r.lastdata, '@', 1)) FILTER (WHERE r.lastapp = 'VoiceMail') AS voicemail,
    (array_agg(r.disposition ORDER BY r.sequence DESC) FILTER (WHERE r.uniqueid = f.uniqueid))[1] AS disposition
  FROM (
    SELECT m.*, m.calldate + m.duration * interval '1 second' AS ended,
      m.calldate + (m.duration - m.billsec) * interval '1 second' AS answered,
      p.phone, CASE WHEN m.disposition = 'ANSWERED' AND m.lastapp IN ('Dial', 'Queue', 'AppDial')
        AND m.dstchannel ~ '^(PJSIP/|Local/[^/]+@agents-)' THEN p.phone END AS person
    FROM @table@ m
    CROSS JOIN LATERAL (
      SELECT COALESCE(substring(m.dstchannel FROM '^PJSIP/(.+)-[0-9a-f]+$'),
                      substring(m.dstchannel FROM '^Local/([^/@]+)@')) AS phone) p
    WHERE m.uniqueid = f.uniqueid OR (m.linkedid = f.uniqueid AND f.lastapp <> 'AgentLogin')
  ) r
) c
CROSS JOIN LATERAL (
  SELECT CASE WHEN c.people IS NULL THEN c.meeting
    WHEN f.lastapp = 'Queue' OR c.menu IS NOT NULL THEN COALESCE(c.connected, c.person) ELSE c.person END AS talk) t
-- LIMIT keeps PostgreSQL from reading the whole table for these.
WHERE (f.uniqueid = f.linkedid OR (
    SELECT 1 FROM @table@ root WHERE root.uniqueid = f.linkedid AND root.lastapp <> 'AgentLogin' LIMIT 1) IS NULL)
  AND NOT EXISTS (SELECT FROM @table@ earlier WHERE earlier.uniqueid = f.uniqueid AND earlier.sequence < f.sequence)
