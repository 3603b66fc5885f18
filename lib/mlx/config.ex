defmodule Mlx.Config do
  @moduledoc false

  # The options of `config :mlx`, which the documentation of `Mlx` lists. All are checked
  # when the application starts.

  # No more fits the engine's numbers.
  @most 2 ** 62

  @options [
    :device,
    :dispatch,
    :f64,
    :inspect,
    :memory_limit,
    :cache_limit,
    :queue_limit,
    :add_backend_on_inspect,
    :debug_bounds_check,
    :debug_detect_nan_inf
  ]

  # What is asked for at every operation, and so is read once.
  @kept [dispatch: :pipelined, f64: :error, inspect: :eager]

  @doc """
  Applies the options of the environment, or raises `ArgumentError`.
  """
  def apply! do
    options = check_all!(Application.get_all_env(:mlx))

    for {key, default} <- @kept do
      keep(key, Keyword.get(options, key, default))
    end

    # A failure is then that of one operation, also among those that are queued together.
    Mlx.Native.stream_set_stepwise(get(:dispatch) == :sync)
    Enum.each(options, &apply_option/1)
  end

  defp check_all!(env) do
    # Modules are those of tools that are configured beside, such as Rustler.
    options = for {key, value} <- env, value != nil, not module?(key), do: {key, value}
    Enum.each(options, fn {key, value} -> check!(key, value, "config :mlx, #{key}:") end)
    options
  end

  defp module?(key), do: match?("Elixir." <> _, Atom.to_string(key))

  defp apply_option({:device, device}), do: Mlx.Device.set_default(device)
  defp apply_option({:memory_limit, bytes}), do: Mlx.Memory.set_limit(bytes)
  defp apply_option({:cache_limit, bytes}), do: Mlx.Memory.set_cache_limit(bytes)
  defp apply_option({:queue_limit, jobs}), do: Mlx.Native.stream_set_queue_limit(jobs)
  defp apply_option(_other), do: :ok

  # Atoms are found faster than tuples.
  @names for {key, default} <- @kept, do: {key, :"mlx_#{key}", default}

  @doc """
  What an option is kept as.
  """
  for {key, name, default} <- @names do
    def get(unquote(key)), do: :persistent_term.get(unquote(name), unquote(default))
  end

  @doc """
  Keeps the value of an option.
  """
  for {key, name, _default} <- @names do
    def keep(unquote(key), value), do: :persistent_term.put(unquote(name), value)
  end

  @doc """
  Raises `ArgumentError`, in the name of who was given the value, if it is none of the option.
  """
  def check!(key, value, who) when key in @options do
    unless valid?(key, value) do
      raise ArgumentError, "#{who} expected #{expected(key)}, got: #{inspect(value)}"
    end

    :ok
  end

  def check!(key, _value, _who) do
    raise ArgumentError,
          "config :mlx, #{key}: there is no such option; there are " <>
            Enum.map_join(@options, ", ", &inspect/1)
  end

  defp valid?(:device, value), do: value in Mlx.Device.available()
  defp valid?(:dispatch, value), do: value in [:pipelined, :sync]
  defp valid?(:f64, value), do: value in [:error, :downcast]
  defp valid?(:inspect, value), do: value in [:eager, :lazy]

  defp valid?(key, value) when key in [:memory_limit, :queue_limit],
    do: is_integer(value) and value in 1..@most

  defp valid?(:cache_limit, value), do: is_integer(value) and value in 0..@most
  defp valid?(_flag, value), do: is_boolean(value)

  defp expected(:device),
    do: "one of the devices there are, #{inspect(Mlx.Device.available())}"

  defp expected(:dispatch), do: "one of [:pipelined, :sync]"
  defp expected(:f64), do: "one of [:error, :downcast]"
  defp expected(:inspect), do: "one of [:eager, :lazy]"
  defp expected(:memory_limit), do: "a positive number of bytes"
  defp expected(:cache_limit), do: "a number of bytes that is not negative"
  defp expected(:queue_limit), do: "a positive number of operations"
  defp expected(_flag), do: "true or false"
end
