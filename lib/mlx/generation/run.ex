defmodule Mlx.Generation.Run do
  @moduledoc """
  Generation in a process of its own, which `Mlx.Generation.start/3` gives.

  ## Fields

    * `:ref` - what its messages are known by
    * `:pid` - its process

  """

  alias Mlx.Generation.Request

  @enforce_keys [:ref, :pid]
  defstruct @enforce_keys

  @type t :: %__MODULE__{ref: reference, pid: pid}

  @doc false
  def start(%Request{} = request, owner) do
    {ref, stream} = {make_ref(), Mlx.Stream.current()}
    # What a process computes goes to the stream that it says.
    pid = spawn(fn -> Mlx.Stream.with_stream(stream, fn -> init(request, owner, ref) end) end)
    %__MODULE__{ref: ref, pid: pid}
  end

  defp init(request, owner, ref) do
    monitor = Process.monitor(owner)
    tell = &send(owner, {Mlx.Generation, ref, &1})

    try do
      request |> Request.start() |> loop(tell, monitor, ref)
    rescue
      error -> tell.({:error, error})
    end
  end

  defp loop(request, tell, monitor, ref) do
    if cancelled?(monitor, ref) do
      finish(request, tell, :cancelled)
    else
      case Request.next(request) do
        {:done, request} ->
          finish(request, tell, :done)

        {tokens, request} ->
          Enum.each(tokens, &tell.({:token, &1}))
          loop(request, tell, monitor, ref)
      end
    end
  end

  defp finish(request, tell, why) do
    Request.stop(request)
    tell.({why, Request.summary(request)})
  end

  defp cancelled?(monitor, ref) do
    receive do
      {:cancel, ^ref} -> true
      {:DOWN, ^monitor, :process, _pid, _reason} -> true
    after
      0 -> false
    end
  end

  @doc false
  def cancel(%__MODULE__{pid: pid, ref: ref}) do
    monitor = Process.monitor(pid)
    send(pid, {:cancel, ref})

    receive do
      {:DOWN, ^monitor, :process, _pid, _reason} -> :ok
    end
  end
end
