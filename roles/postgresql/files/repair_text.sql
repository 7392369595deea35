-- Body of the trigger function labredes_repair_text(). A row whose text is plain ASCII passes untouched.
DECLARE
  field text;
  sent text;
BEGIN
  IF octet_length(NEW::text) = length(NEW::text) THEN
    RETURN NEW;
  END IF;
  FOR field, sent IN
    SELECT key, value FROM jsonb_each_text(to_jsonb(NEW)) WHERE octet_length(value) <> length(value)
  LOOP
    BEGIN
      NEW := jsonb_populate_record(NEW, jsonb_build_object(field, convert_from(convert_to(sent, 'LATIN9'), 'UTF8')));
    EXCEPTION WHEN OTHERS THEN
      -- It was never UTF-8 read as LATIN9: the row is kept with the text as it came.
      NULL;
    END;
  END LOOP;
  RETURN NEW;
END
