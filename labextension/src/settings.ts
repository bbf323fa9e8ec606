/** The settings of a notebook's container, as its metadata and the form have them. */
import { PartialJSONObject } from '@lumino/coreutils';

export const METADATA_KEY = 'apptainer';

/** What the form shows: text as people type it. `nv` is empty, "auto", "true" or "false". */
export type FormValues = Record<'image' | 'nv' | 'binds' | 'overlays', string>;

/** The form's values of what a notebook says. */
export function readValues(metadata: unknown): FormValues {
  const found = isObject(metadata) ? metadata : {};
  const nv = String(found.nv ?? '');
  return {
    image: typeof found.image === 'string' ? found.image : '',
    nv: ['auto', 'true', 'false'].includes(nv) ? nv : '',
    binds: readLines(found.binds),
    overlays: readLines(found.overlays)
  };
}

/**
 * What the notebook says after the form was filled in.
 *
 * Fields that the form does not show stay; an empty one is left out, so that the kernelspec's own value counts. Returns undefined
 * where nothing is left to say.
 */
export function mergeValues(
  metadata: unknown,
  values: Partial<FormValues>
): PartialJSONObject | undefined {
  const merged: PartialJSONObject = isObject(metadata) ? { ...metadata } : {};
  setOrDelete(merged, 'image', values.image ?? '');
  setOrDelete(
    merged,
    'nv',
    values.nv === 'true' || values.nv === 'false' ? values.nv === 'true' : values.nv ?? ''
  );
  setOrDelete(merged, 'binds', writeLines(values.binds ?? ''));
  setOrDelete(merged, 'overlays', writeLines(values.overlays ?? ''));
  return Object.keys(merged).length ? merged : undefined;
}

function isObject(value: unknown): value is PartialJSONObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function readLines(value: unknown): string {
  return Array.isArray(value) ? value.map(String).join('\n') : '';
}

function writeLines(text: string): string[] {
  return text
    .split('\n')
    .map(line => line.trim())
    .filter(line => line);
}

function setOrDelete(
  target: PartialJSONObject,
  key: string,
  value: string | boolean | string[]
): void {
  if (value === '' || (Array.isArray(value) && value.length === 0)) {
    delete target[key];
  } else {
    target[key] = value;
  }
}
