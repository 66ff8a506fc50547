// A reference loop in another language. It captions resized images with an ONNX artifact, by docs/reference/graph-contract.md alone: a contract
// `split/1` token by token, a contract `single/1` in one run. With a contract `question/1` it answers a question about each image. Greedy
// search, one image at a time; no prompt, no words (tokenizer.json has them: a question is given by its ids), no resizing: images are RGB PNG
// files of the artifact's size, as golden captions contain them, since no two libraries resize alike.
//
//   node caption.mjs ARTIFACT [IMAGE.png...] [--question ID,...] [--threads N]
//
// With images: one JSON line each (image, token_ids, score). Without: the artifact's golden images, their ids compared with those that were
// recorded where it was packaged; exit code 1 where they differ.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import * as ort from 'onnxruntime-node'
import { PNG } from 'pngjs'

/** Pixels f32[1,3,S,S] of an RGB PNG: (value * rescale - mean) / std, rounded to float32 at each step as the checkpoint's processor does. */
async function pixelsOf(path, spec) {
  const { width, height, data } = PNG.sync.read(await readFile(path)) // RGBA, row by row
  if (width !== spec.width_px || height !== spec.height_px) {
    throw new Error(`${path}: is ${width}x${height}; resize it to ${spec.width_px}x${spec.height_px} first`)
  }
  const plane = width * height
  const pixels = new Float32Array(3 * plane)
  for (let channel = 0; channel < 3; channel++) {
    const [mean, std] = [Math.fround(spec.mean[channel]), Math.fround(spec.std[channel])]
    for (let i = 0; i < plane; i++) {
      const rescaled = Math.fround(data[4 * i + channel] * spec.rescale)
      pixels[channel * plane + i] = Math.fround(rescaled - mean) / std
    }
  }
  return new ort.Tensor('float32', pixels, [1, 3, height, width])
}

const CONTRACTS = { // how to find a text, with which graphs
  'split/1': [greedy, ['encoder', 'decoder']],
  'question/1': [greedy, ['encoder', 'question', 'decoder']],
  'single/1': [wholeLoop, ['captioner']],
}

/** The artifact's manifest, its graphs by role, and the function that captions with them. */
async function open(folder, threads) {
  const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8'))
  if (manifest.runtime !== 'ort' || !CONTRACTS[manifest.contract]) {
    throw new Error(`${folder}: is for ${manifest.runtime} with contract ${manifest.contract}, this loop for ort with ${Object.keys(CONTRACTS)}`)
  }
  const session = (role) => {
    const [file] = Object.entries(manifest.files).find(([, entry]) => entry.role === role)
    return ort.InferenceSession.create(join(folder, file), { intraOpNumThreads: threads, enableMemPattern: false, logSeverityLevel: 3 })
  }
  const [search, roles] = CONTRACTS[manifest.contract]
  const graphs = {}
  for (const role of roles) graphs[role] = await session(role)
  return { manifest, graphs, search }
}

/** The most likely caption or answer, token by token: all ids from bos_id to eos_id, and their log-probability per generated token. */
async function greedy({ manifest, graphs: { encoder, question, decoder } }, pixels, maxLength, questionIds) {
  const { bos_id: bos, eos_id: eos } = manifest.tokenizer
  const { text_layers: layers, text_heads: heads, text_width: width } = manifest.model
  let cross = await encoder.run({ pixels }) // cross_key_0, cross_value_0, ...: once per image
  if (question) { // the encoder gave image_key_0, image_value_0, ...; the decoder attends to the question
    const question_ids = new ort.Tensor('int64', questionIds.map(BigInt), [1, questionIds.length])
    cross = await question.run({ question_ids, ...cross })
  }
  let past = {}
  for (let layer = 0; layer < layers; layer++) {
    for (const kind of ['key', 'value']) {
      past[`past_${kind}_${layer}`] = new ort.Tensor('float32', new Float32Array(0), [1, heads, 0, width / heads])
    }
  }
  const positions = new ort.Tensor('int64', [0n], [1]) // of the one new token
  const ids = [bos]
  let total = 0
  while (ids.length < maxLength && (ids.length === 1 || ids.at(-1) !== eos)) {
    const token_ids = new ort.Tensor('int64', [BigInt(ids.at(-1))], [1, 1])
    const { logits, ...present } = await decoder.run({ token_ids, positions, ...cross, ...past })
    past = Object.fromEntries(Object.entries(present).map(([name, value]) => [name.replace('present_', 'past_'), value]))
    const [best, logProbability] = likeliest(logits.data) // f32[1,1,V]
    ids.push(best)
    total += logProbability
  }
  return { token_ids: ids, score: total / (ids.length - 1) }
}

/** The same caption from one run of a graph that holds the whole loop. */
async function wholeLoop({ manifest, graphs: { captioner } }, pixels, maxLength) {
  const { bos_id: bos, eos_id: eos } = manifest.tokenizer
  const int64 = (value, axes) => new ort.Tensor('int64', [BigInt(value)], axes)
  const lengths = { min_length: int64(0, []), max_length: int64(maxLength, []) }
  const { token_ids, log_probabilities } = await captioner.run({ pixels, prompt_ids: int64(bos, [1]), ...lengths })
  const ids = Array.from(token_ids.data, Number)
  const end = ids.indexOf(eos, 1)
  if (end > 0) ids.length = end + 1
  return { token_ids: ids, score: log_probabilities.data[0] / (ids.length - 1) }
}

/** Index of the largest logit, the first of equals, and its natural-log probability. */
function likeliest(logits) {
  let best = 0
  for (let i = 1; i < logits.length; i++) {
    if (logits[i] > logits[best]) best = i
  }
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - logits[best]), 0)
  return [best, -Math.log(sum)]
}

/** Whether ids are those of a golden caption: 'same ids', a tie of two words that were as likely, or what differs. */
function verdict(ids, { token_ids: expected, margins_nat }, tieNat) {
  if (ids.join() === expected.join()) return 'same ids'
  const at = expected.findIndex((id, i) => id !== ids[i]) // of two captions, none is the start of the other
  return margins_nat?.[at - 1] < tieNat ? `a tie at token ${at}` : `${ids} differ from ${expected}`
}

const options = { threads: { type: 'string', default: '1' }, question: { type: 'string' } }
const { positionals, values } = parseArgs({ allowPositionals: true, options })
const [folder, ...images] = positionals
if (!folder) {
  console.error('usage: node caption.mjs ARTIFACT [IMAGE.png...] [--question ID,...] [--threads N]')
  process.exit(2)
}
try {
  const artifact = await open(folder, Number(values.threads))
  const { manifest, search } = artifact
  const caption = async (path, maxLength, ids) => search(artifact, await pixelsOf(path, manifest.image), maxLength, ids)
  const asked = values.question?.split(',').map(Number)
  if (images.length && !asked === (manifest.contract === 'question/1')) {
    throw new Error(`${folder}: ${asked ? 'answers no questions; leave out' : 'answers a question; name its ids with'} --question`)
  }
  for (const image of images) {
    console.log(JSON.stringify({ image, ...(await caption(image, manifest.defaults.max_length, asked)) }))
  }
  if (!images.length) {
    const golden = JSON.parse(await readFile(join(folder, 'golden.json'), 'utf8'))
    for (const { resized, captions, question_ids } of golden.images) {
      const { token_ids } = await caption(join(folder, resized), golden.max_length, question_ids)
      const said = verdict(token_ids, captions.find(({ num_beams }) => num_beams === 1), golden.tie_nat)
      console.log(`${resized}: ${said}`)
      if (said.includes('differ')) process.exitCode = 1
    }
  }
} catch (error) {
  console.error(`Error: ${error.message}`)
  process.exitCode = 1
}
