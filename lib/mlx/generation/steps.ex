defmodule Mlx.Generation.Steps do
  @moduledoc false

  # What runs on the device: the prompt, then a step for each token. A step takes the token of
  # the one before as the device has it, so that steps can be queued without waiting.

  alias Mlx.Generation.Sampler

  @least_capacity 64

  @enforce_keys [:generator, :sampler, :numbers, :batch, :used, :capacity]
  defstruct @enforce_keys ++ [:token, :position, :state, :cache, :run]

  @doc """
  Queues all of the prompts but their last tokens.
  """
  def start(generator, prompts, sampling) do
    %{sampler: sampler, numbers: numbers} = sampling
    key = if Sampler.random?(sampler), do: {sampling.key}, else: {}
    batch = length(prompts)
    longest = prompts |> Enum.map(&length/1) |> Enum.max()
    chunks = chunks(0, longest - 1, generator)
    capacity = chunks |> Enum.map(fn {at, size} -> at + size end) |> Enum.max(fn -> 0 end)
    capacity = capacity(max(capacity, longest), generator.max_length)

    cache =
      generator.cache
      |> empty(batch, capacity)
      |> then(&Nx.Defn.jit_apply(&1, [], generator.defn_options))

    cache = Enum.reduce(chunks, cache, &prompt(&1, &2, prompts, generator))

    compile(%__MODULE__{
      generator: generator,
      sampler: sampler,
      numbers: upload(numbers, generator),
      batch: batch,
      used: longest - 1,
      capacity: capacity,
      token: prompts |> Enum.map(&List.last/1) |> Nx.tensor(type: :s32) |> upload(generator),
      position: positions(prompts),
      state: upload({key, past(sampler, prompts, sampling.context)}, generator),
      cache: cache
    })
  end

  defp upload(container, generator),
    do: Nx.backend_copy(container, Nx.Defn.to_backend(generator.defn_options))

  # One for all if it is the same, which is less work.
  defp positions(prompts) do
    positions = Enum.map(prompts, &(length(&1) - 1))
    if Enum.uniq(positions) == [hd(positions)], do: hd(positions), else: positions
  end

  ## The prompt

  # Parts of the prompt, in few sizes, since each is a program of its own. What is written after
  # the end of a prompt is overwritten before anything sees it.
  defp chunks(at, until, _generator) when at >= until, do: []

  defp chunks(at, until, %{prompt_chunk: most, max_length: longest} = generator) do
    size = min(until - at, most)
    padded = size |> padded() |> min(most) |> min(longest - at)
    [{at, padded} | chunks(at + size, until, generator)]
  end

  defp padded(size) when size > 64, do: div(size + 63, 64) * 64
  defp padded(size), do: Enum.find([1, 2, 4, 8, 16, 32, 64], &(&1 >= size))

  defp prompt({at, size}, cache, prompts, generator) do
    tokens =
      for prompt <- prompts do
        part = Enum.slice(prompt, at, size)
        part ++ List.duplicate(0, size - length(part))
      end

    cache = Nx.donatable(cache)
    args = [generator.params, Nx.tensor(tokens, type: :s32), cache]
    Nx.Defn.jit_apply(prompt_fun(generator.forward, at), args, generator.defn_options)
  end

  # The logits are not asked for, so they are not computed.
  defp prompt_fun(forward, at) do
    fn params, tokens, cache -> params |> forward.(tokens, cache, at) |> elem(1) end
  end

  ## The cache

  # Some more than is needed, because each size is a program of its own.
  defp capacity(needed, longest) do
    power = 2 ** floor(:math.log2(needed))
    step = max(@least_capacity, div(power, 4))
    min(div(needed + step - 1, step) * step, longest)
  end

  defp empty(cache, batch, capacity), do: fn -> cache.(batch, capacity) end

  defp grow(%__MODULE__{generator: generator} = steps) do
    capacity = capacity(steps.used + 1, generator.max_length)
    grown = grown(empty(generator.cache, steps.batch, capacity))
    args = [Nx.donatable(steps.cache)]
    cache = Nx.Defn.jit_apply(grown, args, generator.defn_options)
    compile(%{steps | cache: cache, capacity: capacity})
  end

  # What a larger cache has more than this one.
  defp grown(larger) do
    fn cache ->
      {cache, []} =
        Nx.Defn.Composite.traverse(
          cache,
          Nx.Defn.Composite.flatten_list([larger.()]),
          fn leaf, [%{shape: wanted} | rest] -> {widened(leaf, wanted), rest} end
        )

      cache
    end
  end

  defp widened(%{shape: shape} = leaf, shape), do: leaf

  defp widened(%{shape: shape, type: type} = leaf, wanted) do
    more = Enum.zip_with(Tuple.to_list(shape), Tuple.to_list(wanted), &{0, &2 - &1, 0})
    Nx.pad(leaf, Nx.tensor(0, type: type), more)
  end

  ## The steps

  @doc """
  Queues a step, and starts to compute the token that it gives.
  """
  def step(%__MODULE__{used: used, capacity: used} = steps), do: steps |> grow() |> step()

  def step(%__MODULE__{} = steps) do
    args = [steps.generator.params | changing(steps)] ++ [Nx.donatable(steps.cache)]
    {token, state, cache} = apply(steps.run, args)
    if is_struct(token.data, Mlx.Backend), do: Mlx.async_eval(token)
    steps = %{steps | token: token, position: next(steps.position), state: state, cache: cache}
    {token, %{steps | used: steps.used + 1}}
  end

  defp changing(steps), do: [steps.token, position(steps), steps.numbers, steps.state]

  # From the host, so that the engine knows which part of the cache there is to see.
  defp position(%{position: position}),
    do: Nx.tensor(position, type: :s32, backend: Nx.BinaryBackend)

  defp next(positions) when is_list(positions), do: Enum.map(positions, &(&1 + 1))
  defp next(position), do: position + 1

  defp compile(%__MODULE__{generator: generator} = steps) do
    cache = steps.cache |> templates() |> Nx.donatable()
    args = [generator.params | Enum.map(changing(steps), &templates/1)] ++ [cache]
    fun = step_fun(generator.forward, steps.sampler)
    %{steps | run: Nx.Defn.compile(fun, args, generator.defn_options)}
  end

  defp templates(container) do
    {templates, nil} = Nx.Defn.Composite.traverse(container, nil, &{Nx.to_template(&1), &2})
    templates
  end

  defp step_fun(forward, sampler) do
    fn params, token, position, numbers, {key, past}, cache ->
      past = latest(past, token)
      {logits, cache} = forward.(params, Nx.new_axis(token, -1), cache, position)
      logits = Nx.squeeze(logits, axes: [1])
      {token, drawn} = Sampler.sample(sampler, logits, numbers, first(key), first(past))
      {token, {if(drawn, do: {drawn}, else: {}), past}, cache}
    end
  end

  defp first({}), do: nil
  defp first({value}), do: value

  defp latest({}, _token), do: {}

  defp latest({%{shape: {_batch, 1}}}, token), do: {Nx.new_axis(token, -1)}

  defp latest({past}, token) do
    kept = Nx.slice_along_axis(past, 1, Nx.axis_size(past, 1) - 1, axis: 1)
    {Nx.concatenate([kept, Nx.new_axis(token, -1)], axis: 1)}
  end

  # The latest tokens but the last, which the first step adds. What is missing is the first one
  # again, which makes no difference.
  defp past(sampler, prompts, count) do
    if Sampler.penalty?(sampler) do
      rows =
        for prompt <- prompts do
          latest = Enum.take(Enum.drop(prompt, -1), -count)
          List.duplicate(hd(prompt), count - length(latest)) ++ latest
        end

      {Nx.tensor(rows, type: :s32)}
    else
      {}
    end
  end
end
