-- Lists the statements that complete the table of call records, in order. SQL rather than postgresql_table and
-- postgresql_idx: each of those commits by itself, and the table must be completed wholly or not at all.
-- Nothing is narrowed, dropped or emptied. Percent signs are doubled for psycopg2.
WITH wanted AS (
  SELECT n, col, type, CASE WHEN type LIKE 'varchar%%' THEN ' NOT NULL DEFAULT ''''' ELSE '' END AS filled, a.attnum,
    CASE WHEN a.atttypid = 'varchar'::regtype AND a.atttypmod > 0 THEN a.atttypmod - 4 END AS width
  FROM json_each_text(%(columns)s::json) WITH ORDINALITY AS c(col, type, n)
  LEFT JOIN pg_attribute a ON a.attrelid = to_regclass(%(table)s) AND a.attname = col AND NOT a.attisdropped
), present AS (
  SELECT pg_get_indexdef(indexrelid) AS definition, indisprimary FROM pg_index WHERE indrelid = to_regclass(%(table)s)
), reader AS (
  SELECT rolname, has_schema_privilege(oid, 'public', 'CREATE') AS creates,
    COALESCE(has_table_privilege(oid, to_regclass(%(table)s)::oid, 'SELECT'), false) AS reads,
    COALESCE(has_table_privilege(oid, to_regclass(%(table)s)::oid, 'INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER'),
             false) AS writes
  FROM pg_roles WHERE rolname = %(reader)s
), calls AS (
  SELECT replace(%(calls)s, '@table@', quote_ident(%(table)s)) AS body,
    'labredes.pbx: ' || md5(%(calls)s || %(table)s) AS mark,
    COALESCE((SELECT obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass('calls')), '') AS comment
), widened AS (
  SELECT n, format('ALTER TABLE %%I ALTER COLUMN %%I TYPE %%s', %(table)s, col, type) AS statement
  FROM wanted WHERE width < substring(type FROM '^varchar\((\d+)\)$')::int
), built AS (
  SELECT calls.*, comment <> mark OR EXISTS (SELECT FROM widened) AS build FROM calls
), steps(step, n, statement) AS (
  -- PostgreSQL widens no column of a view.
  SELECT 0, 0, 'DROP VIEW calls' FROM calls WHERE comment LIKE 'labredes.pbx: %%' AND EXISTS (SELECT FROM widened)
  UNION ALL
  SELECT 1, 0, format('CREATE TABLE %%I ()', %(table)s) WHERE to_regclass(%(table)s) IS NULL
  UNION ALL
  SELECT 2, n, format('ALTER TABLE %%I ADD COLUMN %%I %%s%%s', %(table)s, col, type, filled)
  FROM wanted WHERE attnum IS NULL
  UNION ALL
  SELECT 3, n, statement FROM widened
  UNION ALL
  SELECT 4, 1, format('ALTER TABLE %%I ADD PRIMARY KEY (id)', %(table)s)
  WHERE NOT EXISTS (SELECT FROM present WHERE indisprimary)
  UNION ALL
  SELECT 4, 2, format('CREATE UNIQUE INDEX ON %%I (uniqueid, sequence)', %(table)s)
  WHERE NOT EXISTS (SELECT FROM present WHERE definition LIKE 'CREATE UNIQUE %%(uniqueid, sequence)')
  UNION ALL
  SELECT 4, 3, format('CREATE INDEX ON %%I (calldate)', %(table)s)
  WHERE NOT EXISTS (SELECT FROM present WHERE definition LIKE '%%(calldate)')
  UNION ALL
  SELECT 4, 4, format('CREATE INDEX ON %%I (linkedid)', %(table)s)
  WHERE NOT EXISTS (SELECT FROM present WHERE definition LIKE '%%(linkedid)')
  UNION ALL
  SELECT 5, 1, format('CREATE OR REPLACE FUNCTION labredes_repair_text() RETURNS trigger LANGUAGE plpgsql AS %%L',
                      %(repair)s)
  WHERE NOT EXISTS (SELECT FROM pg_proc WHERE proname = 'labredes_repair_text' AND prosrc = %(repair)s)
  UNION ALL
  SELECT 5, 2, format('CREATE TRIGGER labredes_repair_text BEFORE INSERT ON %%I '
                      'FOR EACH ROW EXECUTE PROCEDURE labredes_repair_text()', %(table)s)
  WHERE NOT EXISTS (
    SELECT FROM pg_trigger WHERE tgrelid = to_regclass(%(table)s) AND tgname = 'labredes_repair_text')
  UNION ALL
  SELECT 6, 0, format('ALTER TABLE %%I OWNER TO %%I', %(table)s, %(owner)s)
  WHERE NOT EXISTS (
    SELECT FROM pg_class WHERE oid = to_regclass(%(table)s) AND pg_get_userbyid(relowner) = %(owner)s)
  UNION ALL
  SELECT 6, n, statement FROM built, LATERAL (VALUES
    (1, 'CREATE OR REPLACE VIEW calls AS ' || body), (2, format('COMMENT ON VIEW calls IS %%L', mark)),
    (3, format('ALTER VIEW calls OWNER TO %%I', %(owner)s)))
    AS v(n, statement) WHERE build
  UNION ALL
  SELECT 7, 5, format('GRANT SELECT ON calls TO %%I', rolname) FROM reader, built
  WHERE build OR NOT COALESCE(has_table_privilege(rolname, to_regclass('calls')::oid, 'SELECT'), false)
  UNION ALL
  SELECT 7, 1, format('REVOKE ALL ON %%I FROM %%I', %(table)s, rolname) FROM reader WHERE writes
  UNION ALL
  SELECT 7, 2, format('GRANT SELECT ON %%I TO %%I', %(table)s, rolname) FROM reader WHERE writes OR NOT reads
  UNION ALL
  -- Before PostgreSQL 15 everybody may create tables.
  SELECT 7, n, statement FROM reader, (VALUES
    (3, format('GRANT CREATE ON SCHEMA public TO %%I', %(owner)s)), (4, 'REVOKE CREATE ON SCHEMA public FROM PUBLIC'))
    AS v(n, statement) WHERE creates
)
SELECT statement FROM steps ORDER BY step, n
