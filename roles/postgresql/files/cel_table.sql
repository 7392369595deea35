-- Lists the statements that complete the table of channel events (CEL), as cdr_table.sql does for the call records, after
-- that one, whose trigger function it shares. An event is identified by its channel, its time and its type.
WITH wanted AS (
  SELECT n, col, type, a.attnum
  FROM json_each_text(%(events)s::json) WITH ORDINALITY AS c(col, type, n)
  LEFT JOIN pg_attribute a ON a.attrelid = to_regclass('cel') AND a.attname = col AND NOT a.attisdropped
), present AS (
  SELECT pg_get_indexdef(indexrelid) AS definition FROM pg_index WHERE indrelid = to_regclass('cel')
), steps(step, n, statement) AS (
  SELECT 1, 0, 'CREATE TABLE cel (id bigserial PRIMARY KEY)' WHERE to_regclass('cel') IS NULL
  UNION ALL
  SELECT 2, n, format('ALTER TABLE cel ADD COLUMN %%I %%s', col, type) FROM wanted WHERE attnum IS NULL
  UNION ALL
  SELECT 3, 1, 'CREATE UNIQUE INDEX ON cel (uniqueid, eventtime, eventtype)'
  WHERE NOT EXISTS (SELECT FROM present WHERE definition LIKE 'CREATE UNIQUE %%(uniqueid, eventtime, eventtype)')
  UNION ALL
  SELECT 3, 2, 'CREATE INDEX ON cel (eventtime)'
  WHERE NOT EXISTS (SELECT FROM present WHERE definition LIKE '%%(eventtime)')
  UNION ALL
  SELECT 3, 3, 'CREATE INDEX ON cel (linkedid)'
  WHERE NOT EXISTS (SELECT FROM present WHERE definition LIKE '%%(linkedid)')
  UNION ALL
  SELECT 4, 0, 'CREATE TRIGGER labredes_repair_text BEFORE INSERT ON cel'
               ' FOR EACH ROW EXECUTE PROCEDURE labredes_repair_text()'
  WHERE NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('cel') AND tgname = 'labredes_repair_text')
  UNION ALL
  SELECT 5, 0, format('ALTER TABLE cel OWNER TO %%I', %(owner)s)
  WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('cel') AND pg_get_userbyid(relowner) = %(owner)s)
)
SELECT statement FROM steps ORDER BY step, n
