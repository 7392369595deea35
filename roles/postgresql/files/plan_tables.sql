-- Answers with the statements that bring the tables of this database to the data, in the order to run them in.
-- tables: JSON list as postgresql_tables; owner: role that is to own them; repair: body of the repairing trigger.
-- Nothing is narrowed, dropped or emptied. Percent signs are doubled for psycopg2.
WITH wanted AS (
  SELECT t.n, t.value AS data, t.value->>'name' AS name, to_regclass(quote_ident(t.value->>'name')) AS found
  FROM json_array_elements(%(tables)s::json) WITH ORDINALITY AS t(value, n)
), columns AS (
  SELECT w.n, w.name, w.found, c.n AS place, c.value->>'name' AS col, c.value->>'type' AS type
  FROM wanted w, json_array_elements(w.data->'columns') WITH ORDINALITY AS c(value, n)
), keys AS (
  SELECT w.n, w.name, w.found, kind, array(SELECT json_array_elements_text(k.value)) AS cols
  FROM wanted w, (VALUES ('unique'), ('indexes')) AS kinds(kind),
    json_array_elements(coalesce(w.data->kind, '[]')) AS k(value)
), present AS (
  SELECT i.indrelid, i.indisunique AND i.indpred IS NULL AS is_unique,
    array(SELECT a.attname::text FROM unnest(i.indkey::int[]) WITH ORDINALITY AS k(attnum, n)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum ORDER BY k.n) AS cols
  FROM pg_index i WHERE i.indrelid IN (SELECT found FROM wanted)
), steps(n, step, place, statement) AS (
  SELECT n, 1, 0, format('CREATE TABLE %%I (%%s)', name,
                         string_agg(format('%%I %%s NOT NULL', col, type), ', ' ORDER BY place))
  FROM columns WHERE found IS NULL GROUP BY n, name
  UNION ALL
  SELECT n, 2, place, format('ALTER TABLE %%I ADD COLUMN %%I %%s NOT NULL', name, col, type)
  FROM columns WHERE found IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = found AND a.attname = col AND NOT a.attisdropped)
  UNION ALL
  SELECT n, 3, place, format('ALTER TABLE %%I ALTER COLUMN %%I TYPE %%s', name, col, type)
  FROM columns JOIN pg_attribute a ON a.attrelid = found AND a.attname = col
  WHERE a.atttypid = 'varchar'::regtype AND a.atttypmod > 0
    AND substring(type FROM '^varchar\s*\((\d+)\)$')::int > a.atttypmod - 4
  UNION ALL
  SELECT n, 4, 0, format('ALTER TABLE %%I ADD PRIMARY KEY (%%I)', name, data->>'primary_key')
  FROM wanted WHERE data->>'primary_key' IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_constraint p WHERE p.conrelid = found AND p.contype = 'p')
  UNION ALL
  SELECT n, 5, 0, format('CREATE %%s INDEX ON %%I (%%s)', CASE kind WHEN 'unique' THEN 'UNIQUE' ELSE '' END, name,
                         (SELECT string_agg(quote_ident(c), ', ') FROM unnest(cols) AS c))
  FROM keys WHERE NOT EXISTS (
    SELECT FROM present p WHERE p.indrelid = found AND p.cols = keys.cols AND (p.is_unique OR kind = 'indexes'))
  UNION ALL
  SELECT 0, 0, 0, format('CREATE OR REPLACE FUNCTION labredes_repair_text() RETURNS trigger LANGUAGE plpgsql AS %%L',
                         %(repair)s::text)
  WHERE EXISTS (SELECT FROM wanted WHERE (data->>'repair_text')::boolean) AND NOT EXISTS (
    SELECT FROM pg_proc WHERE proname = 'labredes_repair_text' AND prosrc = %(repair)s::text)
  UNION ALL
  SELECT n, 6, 0, format('CREATE TRIGGER labredes_repair_text BEFORE INSERT ON %%I '
                         'FOR EACH ROW EXECUTE PROCEDURE labredes_repair_text()', name)
  FROM wanted WHERE (data->>'repair_text')::boolean AND NOT EXISTS (
    SELECT FROM pg_trigger g WHERE g.tgrelid = found AND g.tgname = 'labredes_repair_text')
  UNION ALL
  SELECT n, 7, 0, format('ALTER TABLE %%I OWNER TO %%I', name, %(owner)s::text)
  FROM wanted LEFT JOIN pg_class r ON r.oid = found WHERE r.oid IS NULL OR pg_get_userbyid(r.relowner) <> %(owner)s::text
)
SELECT statement FROM steps ORDER BY n, step, place
