defmodule Mlx.Generation.Reading do
  @moduledoc false

  # Tokens that the device is asked for before a step is queued, and that are there after it. A
  # stream does one thing after the other: asked for later, they would come after the step.

  alias Mlx.{Dispatch, Native}
  alias Nx.Tensor, as: T

  @doc """
  The numbers of a tensor of `s32`, and what the function gives, which runs meanwhile.
  """
  def during(%T{data: %Mlx.Backend{}, type: {:s, 32}} = tensor, fun) do
    tag = make_ref()
    outcome = tensor |> Dispatch.encoded() |> Native.tensor_read(tag) |> Dispatch.ok!()
    result = run(fun, outcome, tag)

    binary =
      Mlx.Telemetry.span(:to_binary, tensor, fn -> outcome |> outcome(tag) |> Dispatch.ok!() end)

    {for(<<id::32-signed-native <- binary>>, do: id), result}
  end

  def during(tensor, fun) do
    result = fun.()
    {Nx.to_flat_list(tensor), result}
  end

  defp run(fun, outcome, tag) do
    fun.()
  catch
    kind, reason ->
      # Else the message would stay with the caller.
      outcome(outcome, tag)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  defp outcome(:pending, tag), do: receive(do: ({^tag, outcome} -> outcome))
  defp outcome(binary, _tag), do: {:ok, binary}
end
