/** The server extension's REST interface; its types are generated from the OpenAPI file that the server checks itself against. */
import { PageConfig, URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import type { components } from './wire';

type Schemas = components['schemas'];
export type Status = Schemas['Status'];
export type Image = Schemas['Image'];
export type InspectedImage = Schemas['InspectedImage'];
export type ImageContent = Schemas['ImageContent'];
export type Instance = Schemas['Instance'];
export type Kernels = Schemas['Kernels'];
export type Overlay = Schemas['Overlay'];
export type Folder = Schemas['Folder'];
export type Task = Schemas['Task'];
export type LogPart = Schemas['LogPart'];
export type Start = Schemas['Start'];
export type Repair = Start['repairs'][number];
export type RepairAnswer = Schemas['RepairAnswer'];
export type Order = Schemas['Order'];
export type KernelspecRequest = Schemas['KernelspecRequest'];
export type OverlayRequest = Schemas['OverlayRequest'];
export type LoginRequest = Schemas['LoginRequest'];
export type TerminalRequest = Schemas['TerminalRequest'];
export type Terminal = Schemas['Terminal'];

/** A device, as the room of GPUs describes it; null is what it does not report. */
export interface IDevice {
  index: number;
  slice_index: number | null;
  uuid: string;
  name: string;
  memory_used_bytes: number | null;
  memory_total_bytes: number | null;
  utilisation_percent: number | null;
  temperature_c: number | null;
  power_w: number | null;
  problem: string;
}

/** Who uses a device. */
export interface IHolder {
  device: string;
  pid: number;
  owner: string;
  label: string;
  memory_bytes: number | null;
  reason: string;
}

/** One look at all devices. */
export interface IGpus {
  status: { code: string; reason: string; fix: string };
  devices: IDevice[];
  holders: IHolder[];
  others: { device: string; processes: number; memory_bytes: number | null }[];
  hidden: number;
}

/** The server's answer to what did not work. */
export class ApiError extends Error {
  constructor(
    /** HTTP's status. */
    readonly status: number,
    /** Stable; see docs/reference/errors.md. */
    readonly code: string,
    message: string,
    readonly hint: string
  ) {
    super(message);
  }

  /** The server has no such extension: another server, or JupyterLite. */
  get isAbsent(): boolean {
    return this.status === 404 && this.code === '';
  }
}

/**
 * Ask the server extension.
 *
 * Raises ApiError for all that did not work, with status 0 where there is no server.
 */
export async function request<T>(
  method: 'GET' | 'POST' | 'DELETE',
  path: string,
  body?: unknown
): Promise<T> {
  const settings = ServerConnection.makeSettings();
  const url = URLExt.join(settings.baseUrl, 'jupyter-apptainer/v1') + path;
  let response: Response;
  try {
    response = await ServerConnection.makeRequest(
      url,
      { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) },
      settings
    );
  } catch (error) {
    throw new ApiError(0, '', String(error), '');
  }
  const text = await response.text();
  if (response.ok) {
    return (text ? JSON.parse(text) : undefined) as T;
  }
  throw readError(response.status, text);
}

function readError(status: number, text: string): ApiError {
  try {
    const { code, message, hint } = JSON.parse(text).error;
    return new ApiError(status, String(code), String(message), String(hint ?? ''));
  } catch {
    // Not ours: a proxy's page, or a server without the extension.
    return new ApiError(status, '', `HTTP ${status}`, '');
  }
}

/** Say whether the server has the extension: it says so in the page, so nothing is asked and JupyterLab's start waits for nothing. */
export function isServed(): Promise<boolean> {
  return Promise.resolve(PageConfig.getOption('apptainerServed') === 'true');
}
