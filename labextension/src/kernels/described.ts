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

/** short: image, GPU and health in a few words. detail: with the image's path. problem: why it cannot start. */
export interface IDescribed {
  name: string;
  displayName: string;
  hasGpu: boolean;
  short: string;
  detail: string;
  problem: string | undefined;
}

/** Whether a kernelspec of this metadata is one of ours. */
export function isContainerKernel(metadata: unknown): boolean {
  return readProvisioner(metadata)?.provisioner_name === PROVISIONER;
}

/**
 * The container kernels that Jupyter offers.
 *
 * Image and GPU are in their kernelspecs; the health is the server's to tell, and left out where it does not answer soon.
 */
export async function describeKernels(
  app: JupyterFrontEnd,
  trans: TranslationBundle
): Promise<IDescribed[]> {
  const specs = Object.values(app.serviceManager.kernelspecs.specs?.kernelspecs ?? {});
  const ours = specs.filter(spec => spec !== undefined && isContainerKernel(spec.metadata));
  if (!ours.length) {
    return [];
  }
  const health = await findHealth(trans);
  return ours.map(spec => {
    const config = readProvisioner(spec!.metadata)?.config ?? {};
    const image = nameOf(config.image ?? '');
    const hasGpu = config.nv === true || config.rocm === true;
    const problem = health.get(spec!.name);
    const words = [image];
    if (hasGpu) {
      words.push(trans.__('GPU'));
    }
    if (problem) {
      words.push(trans.__('cannot start'));
    }
    return {
      name: spec!.name,
      displayName: spec!.display_name,
      hasGpu,
      short: words.join(' · '),
      detail: [config.image ?? '', hasGpu ? trans.__('GPU') : '', problem === '' ? trans.__('ready') : ''].filter(Boolean).join(' · '),
      problem: problem || undefined
    };
  });
}

function readProvisioner(
  metadata: unknown
): { provisioner_name?: string; config?: IConfig } | undefined {
  return (metadata as { kernel_provisioner?: { provisioner_name?: string; config?: IConfig } } | undefined)
    ?.kernel_provisioner;
}

/** By kernelspec, why it cannot start; empty where it can. Nothing where the server does not tell. */
async function findHealth(trans: TranslationBundle): Promise<Map<string, string>> {
  const late = new Promise<null>(resolve => window.setTimeout(() => resolve(null), PATIENCE_MS));
  const kernels = await Promise.race([request<Kernels>('GET', '/kernels').catch(() => null), late]);
  return new Map(
    (kernels?.kernelspecs ?? []).map(kernel => {
      const findings = kernel.findings as { status?: string; text?: string }[];
      const failed = findings.find(finding => finding.status === 'fail');
      return [kernel.name, failed ? failed.text ?? trans.__('It cannot start.') : ''];
    })
  );
}
