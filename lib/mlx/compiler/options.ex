defmodule Mlx.Compiler.Options do
  @moduledoc false

  @defaults [
    device: nil,
    stream: nil,
    fuse: false,
    fallback: :raise,
    cache: true,
    hooks: %{},
    debug_options: [],
    max_concurrency: 1,
    garbage_collect: false
  ]

  # `Nx.Serving` and `Axon.build/2` pass options of their own on to every compiler.
  @ignored [:compiler, :batch_keys] ++
             [:mode, :seed, :debug, :print_values, :raise_on_none, :global_layer_options]

  @enforce_keys Keyword.keys(@defaults)
  defstruct @enforce_keys

  @doc """
  Checks the options of a call and fills in the defaults.
  """
  def new!(opts) do
    opts = Keyword.drop(opts, @ignored)
    known = Keyword.keys(@defaults)

    case Keyword.keys(opts) -- known do
      [] ->
        options = struct!(__MODULE__, Keyword.merge(@defaults, opts))

        %{options | device: device(options), debug_options: debug(options.debug_options)}
        |> check!(:fuse, [true, false])
        |> check!(:fallback, [:raise, :evaluator])
        |> check!(:cache, [true, false])
        |> check!(:garbage_collect, [true, false])
        |> check_count!()
        |> check_hooks!()

      unknown ->
        raise ArgumentError,
              "unknown options of Mlx.Compiler: #{inspect(unknown)}; known are #{inspect(known)}"
    end
  end

  defp device(%{stream: %Mlx.Stream{device: device}, device: given}) when given in [nil, device],
    do: device

  defp device(%{stream: nil, device: nil}), do: Mlx.Device.default()
  defp device(%{stream: nil, device: device}), do: Mlx.Device.check!(device)

  defp device(%{stream: %Mlx.Stream{device: device}, device: given}) do
    raise ArgumentError, "the stream is one of #{inspect(device)}, not of #{inspect(given)}"
  end

  defp device(%{stream: stream}) do
    raise ArgumentError, ":stream is a Mlx.Stream, got: #{inspect(stream)}"
  end

  defp debug(options) do
    if not Keyword.keyword?(options) do
      raise ArgumentError, ":debug_options is a keyword list, got: #{inspect(options)}"
    end

    options = Keyword.validate!(options, print: false, dispatch: :pipelined)
    check!(options, :print, [true, false])
    check!(options, :dispatch, [:pipelined, :sync])
    Map.new(options)
  end

  defp check_count!(%{max_concurrency: count} = options) when is_integer(count) and count > 0,
    do: options

  defp check_count!(%{max_concurrency: count}) do
    raise ArgumentError, ":max_concurrency is a positive number, got: #{inspect(count)}"
  end

  defp check_hooks!(%{hooks: hooks} = options) do
    for {name, hook} <- hooks, not is_function(hook, 1) do
      raise ArgumentError,
            "the hook #{inspect(name)} is a function of one argument, got: #{inspect(hook)}"
    end

    options
  end

  defp check!(options, key, values) do
    value = if is_list(options), do: options[key], else: Map.fetch!(options, key)

    if value not in values do
      raise ArgumentError,
            "the option #{inspect(key)} is one of #{inspect(values)}, got: #{inspect(value)}"
    end

    options
  end
end
