/** What there is to say about container kernels where one is chosen. */
import { JupyterFrontEnd } from '@jupyterlab/application';
import { TranslationBundle } from '@jupyterlab/translation';

import { Kernels, request } from '../api';
import { nameOf } from '../format';

/** Longer nobody waits for the list of kernels. */
const PATIENCE_MS = 3_000;
const PROVISIONER = 'apptainer-provisioner';

interface IConfig {
  image?: string;
  nv?: unknown;
  rocm?: unknown;
}

/** label: the name that people know, then image, GPU and health in a few words. detail: with the image's path. problem: why it cannot start. */
export interface IDescribed {
  name: string;
  hasGpu: boolean;
  label: string;
  detail: string;
  problem: string | undefined;
}

/** Whether a kernelspec of this metadata is one of ours. */
export function isContainerKernel(metadata: unknown): boolean {
  return readProvisioner(metadata)?.provisioner_name === PROVISIONER;
}

/** The container kernels that Jupyter offers. health: as `loadHealth` gives it; without, nothing is said about it. */
export function listKernels(
  app: JupyterFrontEnd,
  trans: TranslationBundle,
  health: ReadonlyMap<string, string> = new Map()
): IDescribed[] {
  return Object.values(app.serviceManager.kernelspecs.specs?.kernelspecs ?? {}).flatMap(spec =>
    spec && isContainerKernel(spec.metadata)
      ? [describe(spec.name, spec.display_name, readProvisioner(spec.metadata)?.config ?? {}, health, trans)]
      : []
  );
}

/** By kernelspec, why it cannot start; empty where it can. Nothing where the server does not tell soon. */
export async function loadHealth(trans: TranslationBundle): Promise<Map<string, string>> {
  const late = new Promise<null>(resolve => window.setTimeout(() => resolve(null), PATIENCE_MS));
  const kernels = await Promise.race([request<Kernels>('GET', '/kernels').catch(() => null), late]);
  return new Map((kernels?.kernelspecs ?? []).map(kernel => [kernel.name, findProblem(kernel, trans)]));
}

/** Why a kernel cannot start; empty where nothing is known to be in its way. */
export function findProblem(kernel: Kernels['kernelspecs'][number], trans: TranslationBundle): string {
  const findings = kernel.findings as { status?: string; text?: string }[];
  const failed = findings.find(finding => finding.status === 'fail');
  return failed ? failed.text || trans.__('It cannot start.') : '';
}

function describe(
  name: string,
  displayName: string,
  config: IConfig,
  health: ReadonlyMap<string, string>,
  trans: TranslationBundle
): IDescribed {
  const image = config.image ?? '';
  const hasGpu = config.nv === true || config.rocm === true;
  const problem = health.get(name);
  const gpu = hasGpu ? [trans.__('GPU')] : [];
  // Names that we choose have the image in them.
  const file = displayName.includes(nameOf(image)) ? [] : [nameOf(image)];
  const short = [...file, ...gpu, ...(problem ? [trans.__('cannot start')] : [])].join(' · ');
  return {
    name,
    hasGpu,
    label: short ? trans.__('%1 — %2', displayName, short) : displayName,
    detail: [image, ...gpu, ...(problem === '' ? [trans.__('ready')] : [])].join(' · '),
    problem: problem || undefined
  };
}

function readProvisioner(
  metadata: unknown
): { provisioner_name?: string; config?: IConfig } | undefined {
  return (metadata as { kernel_provisioner?: { provisioner_name?: string; config?: IConfig } } | undefined)
    ?.kernel_provisioner;
}
