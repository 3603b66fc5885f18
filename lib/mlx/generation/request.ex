defmodule Mlx.Generation.Request do
  @moduledoc false

  # One call of `Mlx.Generation`: what it asks for, what it has so far, and what it tells of.

  alias Mlx.Generation.{Reading, Sampler, Steps, Text, Token}

  @samplers [:temperature, :top_k, :top_p, :min_p, :repetition_penalty]
  @options @samplers ++
             [:key, max_tokens: 256, repetition_context: 64, stop_tokens: [], stop_strings: []]

  @enforce_keys [:generator, :prompts, :sampling, :max_tokens, :stop_tokens, :rows]
  defstruct @enforce_keys ++ [:steps, :started, :first, :last, pending: [], queued: 0, tokens: 0]

  @doc """
  What the options ask for, once they are found right.
  """
  def new(generator, prompt, opts) do
    opts = Keyword.validate!(opts, @options)
    prompts = prompts!(prompt)
    longest = prompts |> Enum.map(&length/1) |> Enum.max()
    room = generator.max_length - longest + 1
    if room < 1, do: refuse("the prompt", "of at most #{generator.max_length} tokens", longest)

    stops = strings!(opts[:stop_strings], generator.decode)

    %__MODULE__{
      generator: generator,
      prompts: prompts,
      sampling: sampling(opts),
      max_tokens: min(positive!(opts, :max_tokens), room),
      stop_tokens: MapSet.new(ids!(opts[:stop_tokens], ":stop_tokens")),
      rows: for(_ <- prompts, do: Text.new(generator.decode, stops))
    }
  end

  defp sampling(opts) do
    {sampler, numbers} = opts |> Keyword.take(@samplers) |> Sampler.new()
    context = positive!(opts, :repetition_context)
    %{sampler: sampler, numbers: numbers, key: key(sampler, opts[:key]), context: context}
  end

  defp key(sampler, nil),
    do: if(Sampler.random?(sampler), do: Nx.Random.key(:rand.uniform(0xFFFFFFFF)))

  defp key(_sampler, %Nx.Tensor{shape: {2}, type: {:u, 32}} = key), do: key
  defp key(_sampler, other), do: refuse(":key", "a key of Nx.Random", other)

  defp prompts!([first | _] = prompt) when is_integer(first), do: prompts!([prompt])

  defp prompts!([_ | _] = prompts) do
    for prompt <- prompts do
      if prompt == [], do: refuse("a prompt", "at least one token", prompt)
      ids!(prompt, "a prompt")
    end
  end

  defp prompts!(other), do: refuse("the prompt", "tokens, or lists of tokens", other)

  defp ids!(ids, what) do
    if is_list(ids) and Enum.all?(ids, &(is_integer(&1) and &1 in 0..0x7FFFFFFF)),
      do: ids,
      else: refuse(what, "a list of integers from 0 on", ids)
  end

  defp strings!([], _decode), do: []
  defp strings!(_strings, nil), do: raise(ArgumentError, ":stop_strings need :decode")

  defp strings!(strings, _decode) do
    if is_list(strings) and Enum.all?(strings, &(is_binary(&1) and &1 != "")),
      do: strings,
      else: refuse(":stop_strings", "a list of strings", strings)
  end

  defp positive!(opts, name) do
    case opts[name] do
      number when is_integer(number) and number > 0 -> number
      other -> refuse(inspect(name), "a positive integer", other)
    end
  end

  @spec refuse(String.t(), String.t(), term) :: no_return
  defp refuse(what, wanted, got),
    do: raise(ArgumentError, "#{what} is #{wanted}, got: #{inspect(got)}")

  ## Running

  @doc """
  Queues the prompt and the first step.
  """
  def start(%__MODULE__{} = request) do
    request = %{request | started: System.monotonic_time()}

    :telemetry.execute(
      [:mlx, :generation, :start],
      %{system_time: System.system_time()},
      metadata(request)
    )

    guard(request, fn ->
      queue(%{request | steps: Steps.start(request.generator, request.prompts, request.sampling)})
    end)
  end

  # What a step gives is not read here, so that the device has the next one already.
  defp queue(request) do
    {token, steps} = Steps.step(request.steps)
    %{request | steps: steps, pending: request.pending ++ [token], queued: request.queued + 1}
  end

  @doc """
  The tokens of the next step, or `:done`.
  """
  def next(%__MODULE__{pending: []} = request), do: {:done, request}

  def next(%__MODULE__{} = request) do
    guard(request, fn ->
      # The first token waits for one step only.
      ahead = if request.first, do: request.generator.ahead, else: 1
      %{pending: [token | _]} = request = ahead(request, max(ahead - 1, 1))
      {ids, request} = Reading.during(token, fn -> ahead(request, ahead) end)
      %{pending: [_ | pending]} = request
      %{request | pending: pending} |> read() |> tokens(ids, pending == [])
    end)
  end

  defp ahead(request, wanted) do
    if length(request.pending) <= wanted and request.queued < request.max_tokens,
      do: request |> queue() |> ahead(wanted),
      else: request
  end

  defp read(request) do
    now = System.monotonic_time()
    if request.first == nil, do: tell_first(request, now)
    %{request | first: request.first || now, last: now}
  end

  defp tokens(request, ids, last?) do
    rows = request.rows |> Enum.zip(ids) |> Enum.with_index()
    {tokens, rows} = rows |> Enum.map(&token(&1, request, last?)) |> Enum.unzip()
    tokens = Enum.reject(tokens, &is_nil/1)
    request = %{request | rows: rows, tokens: request.tokens + length(tokens)}
    done? = Enum.all?(rows, &is_nil/1)
    {tokens, if(done?, do: %{request | pending: []}, else: request)}
  end

  defp token({{nil, _id}, _row}, _request, _last?), do: {nil, nil}

  defp token({{text, id}, row}, request, last?) do
    if id in request.stop_tokens do
      {%Token{row: row, id: id, text: Text.rest(text), finish: :stop_token}, nil}
    else
      {string, stopped?, text} = Text.push(text, id)
      token = %Token{row: row, id: id, text: string}

      cond do
        stopped? -> {%{token | finish: :stop_string}, nil}
        last? -> {%{token | text: string && string <> Text.rest(text), finish: :length}, nil}
        true -> {token, text}
      end
    end
  end

  ## Telling of it

  defp metadata(request) do
    %{rows: length(request.prompts), prompt_tokens: count(request)}
  end

  defp count(request), do: request.prompts |> Enum.map(&length/1) |> Enum.sum()

  defp tell_first(request, now) do
    duration = now - request.started
    rate = per_second(count(request), duration)
    measurements = %{duration: duration, prompt_tokens_per_second: rate}
    :telemetry.execute([:mlx, :generation, :first_token], measurements, metadata(request))
  end

  @doc """
  Tells what it took, when it is done or nobody wants more.
  """
  def stop(%__MODULE__{} = request) do
    :telemetry.execute([:mlx, :generation, :stop], summary(request), metadata(request))
  end

  @doc """
  How many tokens there are, and how fast they came.
  """
  def summary(%__MODULE__{} = request) do
    rows = length(request.prompts)
    {first, last} = {request.first || request.started, request.last || request.started}

    %{
      duration: System.monotonic_time() - request.started,
      tokens: request.tokens,
      time_to_first_token: first - request.started,
      prompt_tokens_per_second: per_second(count(request), first - request.started),
      tokens_per_second: per_second(max(request.tokens - rows, 0), last - first)
    }
  end

  defp per_second(_count, 0), do: 0.0
  defp per_second(count, time), do: count * System.convert_time_unit(1, :second, :native) / time

  defp guard(request, fun) do
    fun.()
  rescue
    error ->
      duration = System.monotonic_time() - request.started
      reason = %{kind: :error, reason: error, stacktrace: __STACKTRACE__}
      metadata = Map.merge(metadata(request), reason)
      :telemetry.execute([:mlx, :generation, :exception], %{duration: duration}, metadata)
      reraise error, __STACKTRACE__
  end
end
