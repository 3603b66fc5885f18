defmodule Mlx.Generation do
  @moduledoc """
  Tokens from language models, of any kind that has a cache.

      generator = Mlx.Generation.new(&Decoder.forward/4, params, &Decoder.cache/2)

      for token <- Mlx.Generation.stream(generator, prompt, temperature: 0.7, top_p: 0.9) do
        IO.write(decode.([token.id]))
      end

  A model is two functions, both of which run inside `defn`:

    * `forward.(params, tokens, cache, position)` gives `{logits, cache}`. `tokens` are `s32`
      of the shape `{batch, length}`, `logits` have the shape `{batch, length, vocabulary}`.
      `position` is that of the first of the tokens: an integer for a part of the prompt, and
      for single tokens a tensor `{}`, or `{batch}` if the prompts differ in length. The
      functions of `Mlx.Fast` take each of these.
    * `cache.(batch, length)` gives an empty cache with room for `length` tokens, a container.
      A cache grows by what a larger one has more along its axes, filled with zeros.

  What a model writes to the cache belongs to the position: prompts are padded at their ends,
  and what is written there is overwritten later. So models that sum up all they have seen
  in a state, as recurrent ones do, can't be used with this.

  ## What runs when

  All is done on the device, sampling included. A token goes into the next step there, without
  the host, and each step is queued before the token of the one before is read; on a GPU, to which
  steps are short, the one after it as well. So the device never waits for the BEAM, and a
  process that stops reading leaves one step or two behind. A step that is compiled with `Mlx.Compiler` writes to the cache in place.

  The prompt is given to the model in parts, whose logits are not computed but for the last
  token's. Parts have few lengths, and caches few sizes, as each is compiled
  once, which is a part of the time to the first token.

  ## Sampling

  Of the logits of a step, in this order:

    1. `:repetition_penalty` divides those above 0 of the latest tokens by it, and multiplies
       those below.
    2. `:temperature` divides all. At 0, the default, the likeliest token is taken, and what
       follows here is left out.
    3. `:top_k` keeps the likeliest.
    4. `:top_p` keeps the likeliest whose probabilities add up to it, and at least one.
    5. `:min_p` keeps those that are at least so likely compared to the likeliest.

  From what is kept one is drawn with a number from `:key`. Probabilities are in `f32`.

  The penalty is that of [Keskar et al., 2019](https://arxiv.org/abs/1909.05858), `:top_p` is from
  [Holtzman et al., 2019](https://arxiv.org/abs/1904.09751), `:min_p` from [Nguyen et al.,
  2024](https://arxiv.org/abs/2407.01082).

  ## Telemetry

  `[:mlx, :generation, …]`, see `Mlx.Telemetry`.
  """

  import Nx.Defn, only: [deftransform: 2]

  alias Mlx.Generation.{Request, Run, Sampler, Token}

  @enforce_keys [:forward, :params, :cache]
  defstruct @enforce_keys ++
              [
                decode: nil,
                max_length: 0x7FFFFFFF,
                prompt_chunk: 512,
                ahead: 1,
                defn_options: [compiler: Mlx.Compiler]
              ]

  @type forward :: (Nx.Container.t(), Nx.Tensor.t(), Nx.Container.t(), Nx.Tensor.t() | integer ->
                      {Nx.Tensor.t(), Nx.Container.t()})
  @type cache :: (pos_integer, pos_integer -> Nx.Container.t())
  @type prompt :: [non_neg_integer] | [[non_neg_integer]]

  @type t :: %__MODULE__{
          forward: forward,
          params: Nx.Container.t(),
          cache: cache,
          decode: ([non_neg_integer] -> String.t()) | nil,
          max_length: pos_integer,
          prompt_chunk: pos_integer,
          ahead: pos_integer,
          defn_options: keyword
        }

  @typedoc """
  What a generation took. Times are in native units. The prompt's tokens per second are those
  of all rows until the first token, the others those after it.
  """
  @type summary :: %{
          duration: integer,
          tokens: non_neg_integer,
          time_to_first_token: integer,
          prompt_tokens_per_second: float,
          tokens_per_second: float
        }

  @doc """
  A model to generate with.

  `params` is a container of the weights, which may be of `Mlx.Quantization`. They are copied
  to the device if they are elsewhere.

  ## Options

    * `:decode` - a function that makes text of a list of tokens, for `:text` of the tokens and for
      stop strings. It is called with a few of the latest tokens.
    * `:max_length` - how many tokens the model takes, those of the prompt included. Generation
      ends there. No limit by default.
    * `:prompt_chunk` - how many tokens of the prompt the model is given at once, `512` by
      default. More take more memory.
    * `:ahead` - how many steps are queued before a token is waited for, `1` by default, and `2` on a GPU.
      As many are computed for nothing when a row ends before `:max_tokens`.
    * `:defn_options` - for compiling the functions, `[compiler: Mlx.Compiler]` by default

  Raises `ArgumentError` if an option is unknown, or not what it has to be. What the model itself raises
  is raised by the first call that runs it.

  ## Examples

  A model that gives the number after the one that it sees:

      iex> forward = fn _params, tokens, cache, _position ->
      ...>   {Nx.equal(Nx.iota({1, 1, 10}), Nx.new_axis(Nx.add(tokens, 1), -1)), cache}
      ...> end
      iex> cache = fn batch, length -> Nx.broadcast(0, {batch, length}) end
      iex> generator = Mlx.Generation.new(forward, {}, cache)
      iex> Mlx.Generation.generate(generator, [3, 4], max_tokens: 3).tokens
      [5, 6, 7]

  """
  @spec new(forward, Nx.Container.t(), cache, keyword) :: t
  def new(forward, params, cache, opts \\ [])
      when is_function(forward, 4) and is_function(cache, 2) do
    opts = Keyword.validate!(opts, [:decode, :max_length, :prompt_chunk, :ahead, :defn_options])

    for name <- [:max_length, :prompt_chunk, :ahead],
        value <- Keyword.get_values(opts, name),
        not (is_integer(value) and value > 0) do
      raise ArgumentError, "#{inspect(name)} is a positive integer, got: #{inspect(value)}"
    end

    generator = struct!(%__MODULE__{forward: forward, params: params, cache: cache}, opts)
    backend = Nx.Defn.to_backend(generator.defn_options)
    ahead = opts[:ahead] || if(on_gpu?(backend), do: 2, else: 1)
    %{generator | params: Nx.backend_copy(params, backend), ahead: ahead}
  end

  defp on_gpu?({Mlx.Backend, opts}), do: opts[:device] == :gpu
  defp on_gpu?(_backend), do: false

  @doc """
  A stream of `Mlx.Generation.Token`, one for each row of the batch at a time.

  `prompt` is a list of tokens, or a list of such lists, of which each is a row. Rows that are
  finished give no more. Nothing is computed before the first token is asked for, and nothing but
  what is queued by then after the last one that is, see `:ahead` in `new/4`.

  Raises `ArgumentError` at once if an option or a prompt is wrong.

  ## Options

    * `:max_tokens` - of each row, `256` by default
    * `:temperature`, `:top_k`, `:top_p`, `:min_p`, `:repetition_penalty` - see
      [Sampling](#module-sampling). `0.0` and none by default.
    * `:repetition_context` - how many of the latest tokens have the penalty, those of the prompt
      included, `64` by default
    * `:key` - of `Nx.Random`, another one each time by default
    * `:stop_tokens` - tokens that end a row; they are the last of it
    * `:stop_strings` - strings that end a row, with `:decode` in `new/4`. Text ends before them.

  ## Examples

      iex> forward = fn _params, tokens, cache, _position ->
      ...>   {Nx.equal(Nx.iota({1, 1, 10}), Nx.new_axis(Nx.add(tokens, 1), -1)), cache}
      ...> end
      iex> cache = fn batch, length -> Nx.broadcast(0, {batch, length}) end
      iex> generator = Mlx.Generation.new(forward, {}, cache)
      iex> for token <- Mlx.Generation.stream(generator, [1], stop_tokens: [4]), do: {token.id, token.finish}
      [{2, nil}, {3, nil}, {4, :stop_token}]

  """
  @spec stream(t, prompt, keyword) :: Enumerable.t(Token.t())
  def stream(%__MODULE__{} = generator, prompt, opts \\ []) do
    request = Request.new(generator, prompt, opts)

    Stream.resource(
      fn -> Request.start(request) end,
      fn request ->
        case Request.next(request) do
          {:done, request} -> {:halt, request}
          {tokens, request} -> {tokens, request}
        end
      end,
      &Request.stop/1
    )
  end

  @doc """
  Generates all tokens, and waits for them.

  Takes what `stream/3` takes, and raises what it raises. Gives a map with `:tokens`, the last one
  included, `:text`, which is `nil` without `:decode`, and `:finish`, the reason of
  `Mlx.Generation.Token`; for a batch a list of such maps.

  ## Examples

      iex> forward = fn _params, tokens, cache, _position ->
      ...>   {Nx.equal(Nx.iota({1, 1, 10}), Nx.new_axis(Nx.add(tokens, 1), -1)), cache}
      ...> end
      iex> cache = fn batch, length -> Nx.broadcast(0, {batch, length}) end
      iex> generator = Mlx.Generation.new(forward, {}, cache)
      iex> Mlx.Generation.generate(generator, [[1], [5, 6]], max_tokens: 2)
      [%{tokens: [2, 3], text: nil, finish: :length}, %{tokens: [7, 8], text: nil, finish: :length}]

  """
  @spec generate(t, prompt, keyword) :: result | [result]
        when result: %{
               tokens: [non_neg_integer],
               text: String.t() | nil,
               finish: Token.finish()
             }
  def generate(%__MODULE__{} = generator, prompt, opts \\ []) do
    rows = generator |> stream(prompt, opts) |> Enum.group_by(& &1.row)
    results = for row <- 0..(map_size(rows) - 1), do: result(rows[row], generator.decode)
    if is_list(hd(prompt)), do: results, else: hd(results)
  end

  defp result(tokens, decode) do
    %{
      tokens: Enum.map(tokens, & &1.id),
      text: if(decode, do: Enum.map_join(tokens, & &1.text)),
      finish: List.last(tokens).finish
    }
  end

  @doc """
  Generates in a process of its own, which sends messages to the caller.

  Takes what `stream/3` takes, and raises `ArgumentError` in the caller as it does. It runs on the
  stream of the `Mlx.Stream.with_stream/2` that it is called in, if there is one. With the `ref` of
  the result, messages are

    * `{Mlx.Generation, ref, {:token, token}}` for each `Mlx.Generation.Token`
    * `{Mlx.Generation, ref, {:done, summary}}` after the last one
    * `{Mlx.Generation, ref, {:cancelled, summary}}` after `cancel/1`
    * `{Mlx.Generation, ref, {:error, exception}}` if it fails

  The last three end it. It ends, too, when the caller does. A process that is killed sends
  nothing; the `pid` of the result can be monitored.

  ## Examples

      iex> forward = fn _params, tokens, cache, _position ->
      ...>   {Nx.equal(Nx.iota({1, 1, 10}), Nx.new_axis(Nx.add(tokens, 1), -1)), cache}
      ...> end
      iex> cache = fn batch, length -> Nx.broadcast(0, {batch, length}) end
      iex> generator = Mlx.Generation.new(forward, {}, cache)
      iex> %{ref: ref} = Mlx.Generation.start(generator, [1], max_tokens: 1)
      iex> receive do
      ...>   {Mlx.Generation, ^ref, {:token, token}} -> token.id
      ...> end
      2

  """
  @spec start(t, prompt, keyword) :: Run.t()
  def start(%__MODULE__{} = generator, prompt, opts \\ []),
    do: generator |> Request.new(prompt, opts) |> Run.start(self())

  @doc """
  Ends what `start/3` began, and waits until it queues no more. Its messages stay.

  ## Examples

      iex> forward = fn _params, tokens, cache, _position ->
      ...>   {Nx.equal(Nx.iota({1, 1, 10}), Nx.new_axis(Nx.add(tokens, 1), -1)), cache}
      ...> end
      iex> cache = fn batch, length -> Nx.broadcast(0, {batch, length}) end
      iex> generator = Mlx.Generation.new(forward, {}, cache)
      iex> run = Mlx.Generation.start(generator, [1], max_tokens: 1_000_000)
      iex> Mlx.Generation.cancel(run)
      :ok

  """
  @spec cancel(Run.t()) :: :ok
  defdelegate cancel(run), to: Run

  @doc """
  Draws a token for each row of logits `{batch, vocabulary}`, as [Sampling](#module-sampling) says.

  Gives the tokens, `s32` of the shape `{batch}`, and the next key. Inside `defn` as well.

  ## Options

    * `:temperature`, `:top_k`, `:top_p`, `:min_p`, `:repetition_penalty` - as for `stream/3`, but
      that `1.0` is the default temperature
    * `:past` - integers `{batch, count}`, the tokens that have the penalty

  Raises `ArgumentError` if an option is not what it has to be, or if there is a penalty without `:past`.

  ## Examples

      iex> logits = Nx.log(Nx.tensor([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]]))
      iex> {tokens, _key} = Mlx.Generation.sample(logits, Nx.Random.key(1), top_p: 0.5)
      iex> tokens
      #Nx.Tensor<
        s32[2]
        [2, 0]
      >

  """
  @spec sample(Nx.Tensor.t(), Nx.Tensor.t(), keyword) :: {Nx.Tensor.t(), Nx.Tensor.t()}
  deftransform sample(logits, key, opts \\ []) do
    opts =
      Keyword.validate!(opts, [
        :top_k,
        :top_p,
        :min_p,
        :repetition_penalty,
        :past,
        temperature: 1.0
      ])

    {sampler, numbers} = opts |> Keyword.delete(:past) |> Sampler.new()

    if Sampler.penalty?(sampler) and opts[:past] == nil,
      do: raise(ArgumentError, ":repetition_penalty needs :past")

    Sampler.sample(sampler, logits, numbers, key, opts[:past])
  end
end
