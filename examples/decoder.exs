defmodule Decoder do
  @moduledoc """
  A decoder of the families Llama, Qwen2 and Qwen3, for `Mlx.Generation`.

  The configuration is a folder's `config.json`, the parameters are its weights under
  their names, dense or quantized.
  """

  alias Mlx.Fast

  @families ~w(llama qwen2 qwen3)

  @doc """
  The configuration and the parameters of a model's folder. Takes the options of
  `Mlx.Weights.load/2`.
  """
  def read(folder, opts \\ []) do
    config = folder |> Mlx.Weights.load_config() |> config()
    needed? = &(not (config.tied and String.starts_with?(&1, "lm_head.")))
    {config, folder |> Mlx.Weights.load([only: needed?] ++ opts) |> fuse()}
  end

  @joined %{
    "self_attn.qkv_proj" => ~w(self_attn.q_proj self_attn.k_proj self_attn.v_proj),
    "mlp.gate_up_proj" => ~w(mlp.gate_proj mlp.up_proj)
  }

  @doc """
  The parameters with those matrices in one that are multiplied with the same, which takes fewer
  steps. Those that are joined are deallocated. What can't be joined stays as it is.
  """
  def fuse(params) do
    prefixes =
      for {name, _} <- params,
          [prefix, ""] <- [String.split(name, "mlp.down_proj.weight")],
          do: prefix

    for prefix <- prefixes,
        {joined, names} <- @joined,
        part <- ["weight", "bias"],
        reduce: params do
      params ->
        join(params, "#{prefix}#{joined}.#{part}", for(n <- names, do: "#{prefix}#{n}.#{part}"))
    end
  end

  defp join(params, name, names) do
    with [_ | _] = all <- for(name <- names, value = params[name], do: value),
         true <- length(all) == length(names),
         joined when joined != nil <- stacked(all) do
      Enum.each(all, &Nx.backend_deallocate/1)
      params |> Map.drop(names) |> Map.put(name, joined)
    else
      _ -> params
    end
  end

  # Formats may differ from layer to layer.
  defp stacked([%Mlx.Quantization.Tensor{} = first | _] = all) do
    if Enum.uniq_by(all, &{&1.mode, &1.bits, &1.group_size, &1.type, &1.transposed}) == [first] do
      all
      |> Enum.map(&Tuple.to_list(Mlx.Quantization.to_parts(&1)))
      |> Enum.zip_with(&Nx.concatenate(&1, axis: 0))
      |> List.to_tuple()
      |> Mlx.Quantization.from_parts(
        mode: first.mode,
        bits: first.bits,
        group_size: first.group_size
      )
    end
  end

  defp stacked(all), do: Nx.concatenate(all, axis: 0)

  @doc """
  The parameters with all matrices quantized, the embeddings included. Takes the options of
  `Mlx.Quantization.quantize/2`.
  """
  def quantize(params, opts) do
    Map.new(params, fn
      {name, %{shape: {_, _}} = weight} -> {name, Mlx.Quantization.quantize(weight, opts)}
      other -> other
    end)
  end

  @doc """
  The generator of a configuration and parameters.
  """
  def generator(config, params, opts \\ []) do
    opts = Keyword.put_new(opts, :max_length, config.max_length)
    Mlx.Generation.new(forward(config), params, cache(config, params), opts)
  end

  @doc """
  What matters here of a `config.json`.
  """
  def config(%{"model_type" => family} = json) when family in @families do
    heads = json["num_attention_heads"]

    %{
      layers: json["num_hidden_layers"],
      heads: heads,
      groups: json["num_key_value_heads"] || heads,
      size: json["head_dim"] || div(json["hidden_size"], heads),
      eps: json["rms_norm_eps"],
      tied: Map.get(json, "tie_word_embeddings", family == "llama"),
      max_length: json["max_position_embeddings"] || 0x7FFFFFFF,
      rope: rope(json)
    }
  end

  def config(json), do: raise(ArgumentError, "no model of this kind: #{json["model_type"]}")

  # The angles from one position to the next.
  defp rope(json) do
    settings = json["rope_scaling"] || json["rope_parameters"] || %{}
    base = json["rope_theta"] || settings["rope_theta"] || 10_000

    case settings["rope_type"] || settings["type"] || "default" do
      "default" ->
        [base: base]

      "linear" ->
        [base: base, scale: 1 / settings["factor"]]

      # This one begins to differ where generation ends, at the most positions that are trained.
      "dynamic" ->
        [base: base]

      "llama3" ->
        [frequencies: Enum.map(angles(json, base), &llama3(&1, settings))]

      "yarn" ->
        [frequencies: yarn(angles(json, base), base, settings), factor: yarn_factor(settings)]

      other ->
        raise ArgumentError, "no rope scaling of this kind: #{other}"
    end
  end

  defp angles(json, base) do
    size = json["head_dim"] || div(json["hidden_size"], json["num_attention_heads"])
    for i <- 0..(div(size, 2) - 1), do: base ** (-2 * i / size)
  end

  # The same by the number of a pair, between those that turn so often in the trained positions.
  defp yarn(angles, base, settings) do
    size = 2 * length(angles)
    trained = settings["original_max_position_embeddings"] || 4096

    pair = fn turns ->
      size * :math.log(trained / (turns * 2 * :math.pi())) / (2 * :math.log(base))
    end

    first = max(floor(pair.(settings["beta_fast"] || 32)), 0)
    last = min(ceil(pair.(settings["beta_slow"] || 1)), size - 1)

    for {angle, at} <- Enum.with_index(angles) do
      part = (1 - (at - first) / max(last - first, 0.001)) |> max(0.0) |> min(1.0)
      angle * (part + (1 - part) / settings["factor"])
    end
  end

  # What queries and keys are multiplied by.
  defp yarn_factor(settings) do
    factor = fn part ->
      if settings["factor"] > 1, do: 0.1 * part * :math.log(settings["factor"]) + 1, else: 1.0
    end

    factor.(settings["mscale"] || 1) / factor.(settings["mscale_all_dim"] || 0)
  end

  # Long waves are stretched, short ones are not, and those between in part.
  defp llama3(angle, %{"factor" => factor} = settings) do
    [low, high] = [settings["low_freq_factor"], settings["high_freq_factor"]]
    turns = settings["original_max_position_embeddings"] * angle / (2 * :math.pi())
    part = ((turns - low) / (high - low)) |> max(0.0) |> min(1.0)
    angle * (part + (1 - part) / factor)
  end

  @doc """
  What `Mlx.Generation.new/4` takes as the cache.
  """
  def cache(config, params) do
    {layers, groups, size} = {config.layers, config.groups, config.size}
    type = type(params["model.embed_tokens.weight"])

    fn batch, length ->
      shape = {batch, groups, length, size}

      for _ <- 1..layers do
        {Nx.broadcast(Nx.tensor(0, type: type), shape),
         Nx.broadcast(Nx.tensor(0, type: type), shape)}
      end
      |> List.to_tuple()
    end
  end

  defp type(%{type: type}), do: type

  @doc """
  What `Mlx.Generation.new/4` takes as the model.
  """
  def forward(config) do
    fn params, tokens, cache, position -> forward(params, tokens, cache, position, config) end
  end

  defp forward(params, tokens, cache, position, config) do
    {batch, length} = tokens.shape
    # Single tokens have no axis of the length.
    tokens = if length == 1, do: Nx.reshape(tokens, {batch}), else: tokens
    x = Nx.take(params["model.embed_tokens.weight"], tokens)

    {cache, x} =
      cache
      |> Tuple.to_list()
      |> Enum.with_index()
      |> Enum.map_reduce(x, fn {cache, at}, x ->
        layer(x, cache, weights(params, "model.layers.#{at}."), position, config)
      end)

    x = Fast.rms_norm(x, params["model.norm.weight"], eps: config.eps)
    head = if config.tied, do: "model.embed_tokens", else: "lm_head"
    logits = linear(x, params, head)
    {Nx.reshape(logits, {batch, length, :auto}), List.to_tuple(cache)}
  end

  defp weights(params, prefix) do
    for {name, weight} <- params,
        String.starts_with?(name, prefix),
        into: %{},
        do: {String.replace_prefix(name, prefix, ""), weight}
  end

  defp layer(x, cache, weights, position, config) do
    normed = Fast.rms_norm(x, weights["input_layernorm.weight"], eps: config.eps)
    {attended, cache} = attention(normed, cache, weights, position, config)
    x = Nx.add(x, attended)
    normed = Fast.rms_norm(x, weights["post_attention_layernorm.weight"], eps: config.eps)
    {cache, Nx.add(x, feed_forward(normed, weights))}
  end

  defp attention(x, {keys, values}, weights, position, config) do
    counts = [config.heads, config.groups, config.groups]
    sizes = Enum.map(counts, &(&1 * config.size))
    [q, k, v] = linears(x, weights, "self_attn.qkv_proj", sizes)

    [q, k] =
      for {x, name} <- [{q, "q"}, {k, "k"}] do
        x
        |> heads(config.size, weights["self_attn.#{name}_norm.weight"], config.eps)
        |> turned(position, config.rope)
      end

    v = heads(v, config.size, nil, nil)
    keys = Fast.update_cache(keys, k, position)
    values = Fast.update_cache(values, v, position)
    opts = [causal: true, position: position]
    attended = Fast.scaled_dot_product_attention(q, keys, values, opts)
    {attended |> joined() |> linear(weights, "self_attn.o_proj"), {keys, values}}
  end

  # Only Qwen3 has these norms.
  defp normed(x, nil, _eps), do: x
  defp normed(x, weight, eps), do: Fast.rms_norm(x, weight, eps: eps)

  defp turned(x, position, opts) do
    {factor, opts} = Keyword.pop(opts, :factor, 1.0)
    opts = Keyword.replace_lazy(opts, :frequencies, &Nx.tensor(&1, type: :f32))
    x = if factor == 1, do: x, else: Nx.multiply(x, factor)
    Fast.rope(x, position, opts)
  end

  defp feed_forward(x, weights) do
    {_, size} = weights["mlp.down_proj.weight"].shape
    [gate, up] = linears(x, weights, "mlp.gate_up_proj", [size, size])
    gate |> Fast.swiglu(up) |> linear(weights, "mlp.down_proj")
  end

  # Products with several matrices, which may be joined.
  defp linears(x, weights, joined, sizes) do
    if weights[joined <> ".weight"] do
      y = linear(x, weights, joined)
      starts = Enum.scan([0 | sizes], &+/2)
      Enum.zip_with(starts, sizes, &Nx.slice_along_axis(y, &1, &2, axis: -1))
    else
      for name <- @joined[joined], do: linear(x, weights, name)
    end
  end

  # Kernels are `{outputs, inputs}`.
  defp linear(x, weights, name) do
    y = Nx.dot(x, [-1], weights[name <> ".weight"], [-1])
    if bias = weights[name <> ".bias"], do: Nx.add(y, bias), else: y
  end

  # Heads come before the length.
  defp heads(%{shape: {batch, _}} = x, size, norm, eps),
    do: x |> Nx.reshape({batch, :auto, 1, size}) |> normed(norm, eps)

  defp heads(%{shape: {batch, length, _}} = x, size, norm, eps) do
    x
    |> Nx.reshape({batch, length, :auto, size})
    |> normed(norm, eps)
    |> Nx.transpose(axes: [0, 2, 1, 3])
  end

  defp joined(%{shape: {batch, _heads, 1, _size}} = x), do: Nx.reshape(x, {batch, :auto})

  defp joined(%{shape: {batch, _heads, length, _size}} = x),
    do: x |> Nx.transpose(axes: [0, 2, 1, 3]) |> Nx.reshape({batch, length, :auto})
end
